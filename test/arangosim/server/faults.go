package server

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Faults are ordered by tests through /_sim/faults (see control.go).

// Fault is one misbehaviour and the requests that meet it.
type Fault struct {
	Path     string  `json:"path"`     // part of the path that requests must have
	Method   string  `json:"method"`   // "" is any
	Node     string  `json:"node"`     // id or name of the server, "" is any
	Skip     int     `json:"skip"`     // matching requests to let pass first
	Count    int     `json:"count"`    // how many to hit; 0 is one, -1 all
	Kind     string  `json:"kind"`     // status, delay, hang, abort, truncate
	Status   int     `json:"status"`   // of kind status; 503 by default
	ErrorNum int     `json:"errorNum"` // of kind status
	Seconds  float64 `json:"seconds"`  // of kind delay
	Hits     int     `json:"hits"`     // how many it hit so far
}

type faults struct {
	mu   sync.Mutex
	list []*Fault
}

func (f *Fault) matches(r *request) bool {
	return strings.Contains(r.http.URL.Path, f.Path) && (f.Method == "" || f.Method == r.http.Method) &&
		(f.Node == "" || f.Node == r.node.id || f.Node == r.node.name)
}

// take answers the fault that this request meets, nil without one. Truncation
// waits for an answer with a body to cut.
func (r *request) take(truncate bool) *Fault {
	r.faults.mu.Lock()
	defer r.faults.mu.Unlock()
	for _, f := range r.faults.list {
		if (f.Kind == "truncate") != truncate || !f.matches(r) || f.Count == 0 {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Count > 0 {
			f.Count--
		}
		f.Hits++
		return f
	}
	return nil
}

// inject lets a request meet its fault; it answers true when the request is done with.
func (r *request) inject() bool {
	f := r.take(false)
	if f == nil {
		return false
	}
	switch f.Kind {
	case "delay":
		select {
		case <-time.After(time.Duration(f.Seconds * float64(time.Second))):
		case <-r.http.Context().Done():
		}
		return false
	case "hang":
		<-r.http.Context().Done()
		panic(http.ErrAbortHandler)
	case "abort":
		panic(http.ErrAbortHandler)
	}
	code := f.Status
	if code == 0 {
		code = http.StatusServiceUnavailable
	}
	num := f.ErrorNum
	if num == 0 {
		num = code
	}
	r.fail(&Error{Code: code, Num: num, Message: "injected fault"})
	return true
}

// stream200 answers with a body that a fault may cut in the middle, as a broken connection does.
func (r *request) stream200(contentType string, body []byte) error {
	if len(body) == 0 || r.take(true) == nil {
		return r.send(200, contentType, body)
	}
	r.sent = true
	r.w.Header().Set("Content-Type", contentType)
	r.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	r.w.WriteHeader(200)
	if _, err := r.w.Write(body[:len(body)/2]); err == nil {
		err := http.NewResponseController(r.w).Flush()
		r.log.Debug("answer cut", "error", err)
	}
	panic(http.ErrAbortHandler)
}

func (r *request) setFaults() error {
	var list []*Fault
	if err := json.Unmarshal(r.body, &list); err != nil {
		return fail(400, "faults: %v", err)
	}
	for _, f := range list {
		switch f.Kind {
		case "status", "delay", "hang", "abort", "truncate":
		default:
			return fail(400, "fault kind %q: use status, delay, hang, abort or truncate", f.Kind)
		}
		if f.Count == 0 {
			f.Count = 1
		}
	}
	r.faults.mu.Lock()
	r.faults.list = list
	r.faults.mu.Unlock()
	return r.reply(200, map[string]any{"error": false})
}

func (r *request) getFaults() error {
	r.faults.mu.Lock()
	defer r.faults.mu.Unlock()
	b, err := json.Marshal(r.faults.list)
	if err != nil {
		return err
	}
	return r.send(200, "application/json", b)
}

package server

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Asynchronous jobs (HTTP API, Jobs): a request with the header x-arango-async
// is answered 202 at once and runs on; with "store" its answer is kept until
// it is fetched or deleted. Jobs belong to the server, not to a database.

const (
	asyncHeader   = "x-arango-async"
	asyncIDHeader = "x-arango-async-id"
)

type jobs struct {
	mu     sync.Mutex
	all    map[string]*job
	closed bool
}

type job struct {
	id       string
	created  time.Time
	cancel   context.CancelFunc
	canceled bool
	done     bool
	answer   recorded
}

// recorded is an answer that nobody has fetched yet.
type recorded struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *recorded) Header() http.Header         { return a.header }
func (a *recorded) WriteHeader(code int)        { a.code = code }
func (a *recorded) Write(b []byte) (int, error) { return a.body.Write(b) }

// startJob answers 202 and runs the request in the background.
func (r *request) startJob(keep bool) error {
	if err := r.authenticate(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.http.Context()))
	j := &job{id: strconv.FormatUint(r.store.Clock().Next(), 10), created: time.Now(), cancel: cancel,
		answer: recorded{header: http.Header{}, code: http.StatusOK}}
	copied := *r
	copied.w, copied.http = &j.answer, r.http.Clone(ctx)
	copied.http.Header.Del(asyncHeader)
	r.jobs.mu.Lock()
	if r.jobs.all == nil {
		r.jobs.all = map[string]*job{}
	}
	if r.jobs.closed {
		r.jobs.mu.Unlock()
		cancel()
		return fail(503)
	}
	r.jobs.all[j.id] = j
	r.done.Add(1)
	r.jobs.mu.Unlock()
	go func() {
		defer r.done.Done()
		defer cancel()
		defer r.jobs.finish(j, keep)
		defer func() {
			// A fault breaks connections with this panic; a job has none.
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			}
		}()
		copied.answer(copied.dispatch)
	}()
	if keep {
		r.w.Header().Set(asyncIDHeader, j.id)
	}
	return r.send(http.StatusAccepted, "text/plain; charset=utf-8", nil)
}

func (js *jobs) finish(j *job, keep bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	j.done = true
	if j.canceled {
		e := fail(21)
		j.answer = recorded{header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}, code: e.Code}
		j.answer.body.Write(value.JSON(e.body()))
	}
	if !keep {
		delete(js.all, j.id)
	}
}

// close ends all running jobs and takes no more.
func (js *jobs) close() {
	js.mu.Lock()
	defer js.mu.Unlock()
	js.closed = true
	for _, j := range js.all {
		j.cancel()
	}
}

// listJobs is GET /_api/job/done and /pending.
func listJobs(done bool) handler {
	return func(r *request) error {
		r.jobs.mu.Lock()
		defer r.jobs.mu.Unlock()
		ids := []string{}
		for id, j := range r.jobs.all {
			if j.done == done {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		return r.reply(200, value.Strings(ids[:min(len(ids), int(r.number("count", 100)))]...))
	}
}

// jobResult is PUT /_api/job/{id}: the stored answer, which is forgotten with that. GET only tells whether it is there.
func jobResult(fetch bool) handler {
	return func(r *request) error {
		r.jobs.mu.Lock()
		defer r.jobs.mu.Unlock()
		j := r.jobs.all[r.vars["id"]]
		switch {
		case j == nil:
			return fail(404)
		case !j.done:
			return r.send(204, "", nil)
		case !fetch:
			return r.send(200, "text/plain; charset=utf-8", nil)
		}
		delete(r.jobs.all, j.id)
		for name, values := range j.answer.header {
			r.w.Header()[name] = values
		}
		r.w.Header().Set(asyncIDHeader, j.id)
		return r.send(j.answer.code, j.answer.header.Get("Content-Type"), j.answer.body.Bytes())
	}
}

func cancelJob(r *request) error {
	r.jobs.mu.Lock()
	defer r.jobs.mu.Unlock()
	j := r.jobs.all[r.vars["id"]]
	if j == nil || j.done {
		return fail(404)
	}
	j.canceled = true
	j.cancel()
	return r.reply(200, value.New("result", true))
}

// deleteJobs is DELETE /_api/job/{all, expired?stamp, ID}; what still runs is ended.
func deleteJobs(r *request) error {
	r.jobs.mu.Lock()
	defer r.jobs.mu.Unlock()
	which := r.vars["id"]
	if _, ok := r.jobs.all[which]; !ok && which != "all" && which != "expired" {
		return fail(404)
	}
	stamp := time.Unix(int64(r.number("stamp", 0)), 0)
	for id, j := range r.jobs.all {
		if which == "all" || which == id || which == "expired" && j.created.Before(stamp) {
			j.cancel()
			delete(r.jobs.all, id)
		}
	}
	return r.reply(200, value.New("result", true))
}

func (s *Server) registerJobs() {
	a := s.routes.add
	a(signedIn, "GET /_api/job/done", listJobs(true))
	a(signedIn, "GET /_api/job/pending", listJobs(false))
	a(signedIn, "GET /_api/job/{id}", jobResult(false))
	a(signedIn, "PUT /_api/job/{id}", jobResult(true))
	a(signedIn, "PUT /_api/job/{id}/cancel", cancelJob)
	a(signedIn, "DELETE /_api/job/{id}", deleteJobs)
}

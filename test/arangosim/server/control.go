package server

import (
	"fmt"
	"net/http"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// control is /_sim, which no ArangoDB has: what tests do to the simulator. It
// needs no authentication, meets no fault, and every living server answers it.
//
//	PUT  /_sim/faults         [Fault …]   replace all faults; [] ends them
//	GET  /_sim/faults                     the faults with their hits
//	POST /_sim/kill           {"server"}  end a server
//	POST /_sim/revive         {"server"}  bring it back
//	POST /_sim/attach         {"server"}  bring it back until this request ends; answers its URL
//	POST /_sim/move           {"database","collection","shard","from","to"}
//	POST /_sim/resign         {"server"}  its leaderships go to followers
//	POST /_sim/expire-batches             end all replication batches and dumps at once
//	GET  /_sim/state                      servers, batches, dumps
func (r *request) control() error {
	if len(r.path) < 2 {
		return fail(404)
	}
	if r.path[1] == "faults" {
		if r.http.Method == "PUT" {
			return r.setFaults()
		}
		return r.getFaults()
	}
	o, err := r.object()
	if err != nil {
		return err
	}
	switch r.path[1] {
	case "kill", "revive", "resign", "attach":
		n := r.nodeByID(o.String("server"))
		if n == nil {
			return fail(404, "unknown server %q", o.String("server"))
		}
		switch r.path[1] {
		case "kill":
			err = r.kill(n)
		case "revive":
			r.revive(n)
		case "attach":
			return r.attach(n)
		case "resign":
			err = r.demote(n.id)
		}
	case "move":
		err = r.move(o.String("database"), o.String("collection"), o.String("shard"), o.String("from"), o.String("to"))
	case "expire-batches":
		r.batches.closeAll()
		r.dumps.closeAll()
	case "state":
		return r.state()
	default:
		return fail(404)
	}
	if err != nil {
		return err
	}
	return r.ok(200, value.New())
}

func (r *request) attach(n *node) error {
	mine := n.holder.Add(1)
	r.revive(n)
	r.sent = true
	if _, err := fmt.Fprintln(r.w, n.url()); err != nil {
		return err
	}
	if err := http.NewResponseController(r.w).Flush(); err != nil {
		return err
	}
	<-r.http.Context().Done()
	if n.holder.Load() != mine { // attached to anew
		return nil
	}
	return r.kill(n)
}

func (r *request) state() error {
	nodes := []any{}
	for _, n := range r.nodes {
		nodes = append(nodes, value.New("id", n.id, "name", n.name, "role", n.role, "url", n.url(), "up", n.up(), "inSync", n.inSync()))
	}
	batches, dumps := 0, 0
	r.batches.each(func(string, *batch) { batches++ })
	r.dumps.each(func(string, *parallelDump) { dumps++ })
	out := value.New("nodes", nodes, "batches", batches, "dumps", dumps)
	return r.store.View(func(tx *store.Tx) error {
		out.Set("tick", tx.Tick())
		return r.ok(200, out)
	})
}

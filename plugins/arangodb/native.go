package arangodb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// The interface of arangorestore, which the vendor does not document (arangod/RestHandler/RestReplicationHandler.cpp of the
// server's source): restore-collection, restore-indexes, restore-view and restore-data below /_api/replication. It is
// used on demand, in place of the documented requests that do the same, and given up for those where the server refuses it.

// isNative says whether it is wanted.
func (a *applier) isNative() bool { return a.s.options(a.run, "native") == "yes" }

// native sends one request of that interface. False: the documented one is to be tried.
func (a *applier) native(ctx context.Context, q call) (bool, error) {
	if !a.isNative() {
		return false, nil
	}
	q.method, q.path = "PUT", "/_api/replication/"+q.path
	_, err := a.write(ctx, q)
	if err == nil {
		return true, nil
	}
	var refusal *apiError
	if errors.As(err, &refusal) && !refusal.transient() && !errors.Is(err, plugins.ErrAuth) {
		return false, nil
	}
	return false, err
}

// nativeData writes documents. The server refuses all of a request for one of them.
func (t *collectionTask) nativeData(ctx context.Context, body []byte) (bool, error) {
	if !t.isNative() {
		return false, nil
	}
	var docs []json.RawMessage
	if err := json.Unmarshal(body, &docs); err != nil {
		return false, err
	}
	var lines bytes.Buffer
	for _, d := range docs { // the envelope, as a document may have an attribute "type" of its own
		lines.WriteString(`{"type":2300,"data":`)
		lines.Write(d)
		lines.WriteString("}\n")
	}
	return t.native(ctx, call{db: t.db, path: "restore-data", query: map[string]string{"collection": t.name}, raw: lines.Bytes()})
}

// make makes a collection, an index or a view from its definition: natively, or by a documented request.
func (w *structure) make(ctx context.Context, documented call, native string, body object) error {
	done, err := w.native(ctx, call{db: documented.db, path: native, body: body, timeout: longCall})
	if done || err != nil {
		return err
	}
	documented.method = "POST"
	return w.call(ctx, documented)
}

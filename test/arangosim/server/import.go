package server

import (
	"bytes"
	"fmt"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// importDocuments is POST /_api/import: JSON lines, one array, or a line of
// attribute names followed by lines of values.
func importDocuments(r *request) error {
	docs, empty, err := r.importRows()
	if err != nil {
		return err
	}
	opt := writeOptions{keepNull: true, mergeObjects: true, ignoreRevs: true, waitForSync: r.flag("waitForSync", false), mode: "conflict"}
	switch r.query.Get("onDuplicate") {
	case "update", "replace", "ignore":
		opt.mode = r.query.Get("onDuplicate")
	case "", "error":
	default:
		return fail(400, "invalid value for onDuplicate")
	}
	counts := map[string]int{}
	var details []string
	complete := r.flag("complete", false)
	err = r.update(func(tx *store.Tx, d *store.Database) error {
		c, err := r.collection(tx, d, r.query.Get("collection"), writeDB)
		if err != nil {
			return err
		}
		if err := r.writeConcern(c); err != nil {
			return err
		}
		if r.flag("overwrite", false) {
			tx.Truncate(c)
		}
		w := r.newWriter(tx, c, opt)
		for i, row := range docs {
			what, err := w.importOne(row, r.query.Get("fromPrefix"), r.query.Get("toPrefix"))
			if err != nil && complete {
				return err
			}
			if err != nil {
				what = "errors"
				details = append(details, fmt.Sprintf("at position %d: %s", i+1, errorOf(err).Message))
			}
			counts[what]++
		}
		w.finish()
		return nil
	})
	if err != nil {
		return err
	}
	out := value.New("error", false, "created", counts["created"], "errors", counts["errors"], "empty", empty,
		"updated", counts["updated"], "ignored", counts["ignored"])
	if r.flag("details", false) {
		out.Set("details", value.Strings(details...))
	}
	return r.reply(201, out)
}

func (w *writer) importOne(row any, from, to string) (string, error) {
	doc, err := asDocument(row)
	if err != nil {
		return "", err
	}
	for name, prefix := range map[string]string{"_from": from, "_to": to} {
		if id := doc.String(name); prefix != "" && id != "" && !bytes.Contains([]byte(id), []byte("/")) {
			doc.Set(name, prefix+"/"+id)
		}
	}
	existed := doc.String("_key") != "" && w.tx.Get(w.c, doc.String("_key")) != nil
	if _, err := w.insert(doc); err != nil {
		return "", err
	}
	switch {
	case existed && w.opt.mode == "ignore":
		return "ignored", nil
	case existed:
		return "updated", nil
	}
	return "created", nil
}

func (r *request) importRows() (docs []any, empty int, err error) {
	kind := r.query.Get("type")
	if kind == "auto" {
		kind = "documents"
		if t := bytes.TrimSpace(r.body); len(t) > 0 && t[0] == '[' {
			kind = "list"
		}
	}
	switch kind {
	case "list", "array":
		body, err := r.any()
		if err != nil {
			return nil, 0, err
		}
		items, ok := body.([]any)
		if !ok {
			return nil, 0, fail(400, "expecting a JSON array in the request")
		}
		return items, 0, nil
	case "documents", "":
	default:
		return nil, 0, fail(400, "invalid value for type")
	}
	var names []string
	for line := range bytes.SplitSeq(r.body, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			if len(line) > 0 {
				empty++
			}
			continue
		}
		v, err := value.Parse(line)
		if err != nil {
			docs = append(docs, nil)
			continue
		}
		if kind != "" {
			docs = append(docs, v)
			continue
		}
		cells, ok := v.([]any)
		if !ok {
			return nil, 0, fail(400, "expecting a JSON array in each line")
		}
		if names == nil {
			names = value.StringList(cells)
			continue
		}
		doc := &value.Object{}
		for i, cell := range cells {
			if i < len(names) && cell != nil {
				doc.Set(names[i], cell)
			}
		}
		docs = append(docs, doc)
	}
	return docs, empty, nil
}

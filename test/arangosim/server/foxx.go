package server

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"path"
	"slices"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Foxx services are kept as documents of _apps with their bundle in
// _appbundles, listed and given back; no JavaScript runs.

// systemServices are built in.
var systemServices = map[string]string{"/_admin/aardvark": "aardvark", "/_api/foxx": "foxx-manager"}

func systemService(mount string) *value.Object {
	manifest := value.New("name", systemServices[mount], "version", "3.0.0", "description", "built in")
	return value.New("mount", mount, "manifest", manifest, "system", true, "development", false,
		"options", value.New("configuration", &value.Object{}, "dependencies", &value.Object{}))
}

// service answers the stored service of a mount, nil when there is none.
func service(tx *store.Tx, d *store.Database, mount string) *value.Object {
	if _, ok := systemServices[mount]; ok {
		return systemService(mount)
	}
	var found *value.Object
	tx.Each(tx.Collection(d, "_apps"), func(raw []byte) bool {
		if o := value.MustObject(raw); o.String("mount") == mount {
			found = o
		}
		return found == nil
	})
	return found
}

func shownService(o *value.Object) *value.Object {
	m := o.Object("manifest")
	provides := m.Object("provides")
	if provides == nil {
		provides = &value.Object{}
	}
	return value.New("mount", o.String("mount"), "name", m.Get("name"), "version", m.Get("version"), "provides", provides,
		"development", o.Bool("development", false), "legacy", false)
}

func listServices(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		out := []any{}
		if !r.flag("excludeSystem", false) {
			for _, m := range []string{"/_admin/aardvark", "/_api/foxx"} {
				out = append(out, shownService(systemService(m)))
			}
		}
		tx.Each(tx.Collection(d, "_apps"), func(raw []byte) bool {
			out = append(out, shownService(value.MustObject(raw)))
			return true
		})
		return r.reply(200, out)
	})
}

// mounted runs f on the service that ?mount names.
func (r *request) mounted(f func(o *value.Object) error) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		o := service(tx, d, r.query.Get("mount"))
		if o == nil {
			return fail(3009)
		}
		return f(o)
	})
}

func getService(r *request) error {
	return r.mounted(func(o *value.Object) error {
		out := shownService(o)
		out.Set("path", path.Join("/apps", o.String("mount"))).Set("manifest", o.Get("manifest")).
			Set("options", o.Get("options")).Set("checksum", o.Get("checksum"))
		return r.reply(200, out)
	})
}

// bundleFile reads one file of a bundle; without such a file the answer is nil.
func bundleFile(bundle []byte, names ...string) ([]byte, error) {
	z, err := zip.NewReader(bytes.NewReader(bundle), int64(len(bundle)))
	if err != nil {
		return nil, err
	}
	for _, f := range z.File {
		if !slices.Contains(names, path.Base(f.Name)) {
			continue
		}
		in, err := f.Open()
		if err != nil {
			return nil, err
		}
		defer in.Close()
		return io.ReadAll(io.LimitReader(in, 1<<20))
	}
	return nil, nil
}

// manifestOf reads manifest.json of a bundle; bundles that are no zip get one made up of their digest.
func manifestOf(bundle []byte, digest string) (*value.Object, error) {
	b, err := bundleFile(bundle, "manifest.json")
	switch {
	case errors.Is(err, zip.ErrFormat):
		return value.New("name", "service-"+digest[:8], "version", "1.0.0"), nil
	case err != nil:
		return nil, err
	case b == nil:
		return nil, errors.New("the bundle has no manifest.json")
	}
	return value.ParseObject(b)
}

// putService installs, replaces or upgrades; an upgrade keeps configuration and dependencies.
func putService(install bool) handler {
	return func(r *request) error {
		mount := r.query.Get("mount")
		sum := sha256.Sum256(r.body)
		digest := hex.EncodeToString(sum[:])
		manifest, err := manifestOf(r.body, digest)
		if err != nil {
			return fail(3000, "invalid manifest: %v", err).withCode(400)
		}
		var doc *value.Object
		err = r.update(func(tx *store.Tx, d *store.Database) error {
			old := service(tx, d, mount)
			switch {
			case install && old != nil:
				return fail(3011)
			case !install && old == nil && !r.flag("force", false):
				return fail(3009)
			}
			options := value.New("configuration", &value.Object{}, "dependencies", &value.Object{})
			if old != nil && r.http.Method == "PATCH" {
				options = old.Object("options")
			}
			doc = value.New("mount", mount, "path", path.Join("/apps", mount), "manifest", manifest, "checksum", digest,
				"development", false, "options", options)
			if err := r.saveService(tx, d, doc, old); err != nil {
				return err
			}
			bundles := tx.Collection(d, "_appbundles")
			_, err := r.newWriter(tx, bundles, writeOptions{mode: "replace", keepNull: true, ignoreRevs: true}).
				insert(value.New("_key", digest, "bundle", base64.StdEncoding.EncodeToString(r.body)))
			return err
		})
		if err != nil {
			return err
		}
		code := 200
		if install {
			code = 201
		}
		return r.reply(code, shownService(doc))
	}
}

func (r *request) saveService(tx *store.Tx, d *store.Database, doc, old *value.Object) error {
	w := r.newWriter(tx, tx.Collection(d, "_apps"), writeOptions{mode: "replace", keepNull: true, ignoreRevs: true})
	if old != nil {
		doc.Set("_key", old.String("_key"))
	}
	_, err := w.insert(doc)
	return err
}

func deleteService(r *request) error {
	err := r.update(func(tx *store.Tx, d *store.Database) error {
		o := service(tx, d, r.query.Get("mount"))
		if o == nil || o.Bool("system", false) {
			if r.flag("force", false) {
				return nil
			}
			return fail(3009)
		}
		return tx.Delete(tx.Collection(d, "_apps"), o.String("_key"))
	})
	if err != nil {
		return err
	}
	return r.send(204, "", nil)
}

// serviceOption is configuration or dependencies: GET shows, PATCH merges, PUT replaces.
func serviceOption(name string) handler {
	return func(r *request) error {
		if r.http.Method == "GET" {
			return r.mounted(func(o *value.Object) error { return r.reply(200, child(child(o, "options"), name)) })
		}
		given, err := r.object()
		if err != nil {
			return err
		}
		out := given
		err = r.update(func(tx *store.Tx, d *store.Database) error {
			o := service(tx, d, r.query.Get("mount"))
			if o == nil || o.Bool("system", false) {
				return fail(3009)
			}
			if r.http.Method == "PATCH" {
				out = value.Merge(child(child(o, "options"), name), given, true, true)
			}
			child(o, "options").Set(name, out)
			return r.saveService(tx, d, o.Delete("_id", "_rev"), o)
		})
		if err != nil {
			return err
		}
		return r.reply(200, out)
	}
}

func serviceScripts(r *request) error {
	return r.mounted(func(o *value.Object) error { return r.reply(200, child(o.Object("manifest"), "scripts")) })
}

func runScript(r *request) error {
	return r.mounted(func(*value.Object) error {
		return &Error{Code: 400, Num: 3016, Message: "service has no such script: JavaScript is not simulated"}
	})
}

func serviceTests(r *request) error {
	return r.mounted(func(*value.Object) error {
		return r.reply(200, value.New("stats", value.New("tests", 0, "passes", 0, "failures", 0, "pending", 0, "duration", 0),
			"tests", []any{}, "pending", []any{}, "failures", []any{}, "passes", []any{}))
	})
}

func development(on bool) handler {
	return func(r *request) error {
		var doc *value.Object
		err := r.update(func(tx *store.Tx, d *store.Database) error {
			if doc = service(tx, d, r.query.Get("mount")); doc == nil || doc.Bool("system", false) {
				return fail(3009)
			}
			doc.Set("development", on)
			return r.saveService(tx, d, doc.Clone().Delete("_id", "_rev"), doc)
		})
		if err != nil {
			return err
		}
		return r.reply(200, shownService(doc))
	}
}

// serviceReadme is the bundle's README as text; 204 without one.
func serviceReadme(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		b, err := bundleOf(tx, d, r.query.Get("mount"))
		if err != nil {
			return err
		}
		text, err := bundleFile(b, "README.md", "README")
		if err != nil || text == nil {
			return r.send(204, "", nil)
		}
		return r.send(200, "text/plain; charset=utf-8", text)
	})
}

func serviceSwagger(r *request) error {
	return r.mounted(func(o *value.Object) error {
		m := o.Object("manifest")
		return r.reply(200, value.New("swagger", "2.0", "basePath", "/_db/"+r.db+o.String("mount"), "paths", &value.Object{},
			"info", value.New("title", m.Get("name"), "description", "", "version", m.Get("version"), "license", &value.Object{})))
	})
}

func commitServices(r *request) error { return r.send(204, "", nil) }

// heal is POST _local/heal: bundles live in the database, so there is nothing to heal.
func heal(r *request) error { return r.ok(200, value.New()) }

// bundleOf answers the bundle that is installed at a mount.
func bundleOf(tx *store.Tx, d *store.Database, mount string) ([]byte, error) {
	o := service(tx, d, mount)
	if o == nil {
		return nil, fail(3009)
	}
	raw := tx.Get(tx.Collection(d, "_appbundles"), o.String("checksum"))
	if raw == nil {
		return nil, fail(3009, "bundle not found")
	}
	return base64.StdEncoding.DecodeString(value.MustObject(raw).String("bundle"))
}

func downloadService(r *request) error {
	return r.view(func(tx *store.Tx, d *store.Database) error {
		b, err := bundleOf(tx, d, r.query.Get("mount"))
		if err != nil {
			return err
		}
		return r.send(200, "application/zip", b)
	})
}

package elasticsearch

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Kinds of cluster objects, in the order in which they are written; they are removed in the opposite one.
const (
	kindScript     = "script"
	kindPipeline   = "pipeline"
	kindComponent  = "component_template"
	kindTemplate   = "template" // legacy
	kindIndex      = "index_template"
	kindPersistent = "persistent"
	kindTransient  = "transient"
)

var objectKinds = []string{kindScript, kindPipeline, kindComponent, kindTemplate, kindIndex}

// objects reads templates of all kinds, pipelines, stored scripts and cluster settings.
func (s *session) objects(ctx context.Context, scripts json.RawMessage) (map[string][]byte, error) {
	out := map[string][]byte{}
	add := func(kind, name string, raw json.RawMessage) error {
		b, err := canonical(raw)
		if err != nil {
			return fmt.Errorf("%s: %s %s: %w", s.target, kind, name, err)
		}
		if key := kind + "/" + name; !serverObject(key, b) {
			out[key] = b
		}
		return nil
	}
	// Listings that are one object by name.
	for kind, path := range map[string]string{kindTemplate: "/_template?flat_settings=true", kindPipeline: "/_ingest/pipeline"} {
		m := map[string]json.RawMessage{}
		if err := s.c.get(ctx, path, &m); err != nil {
			if unknownCall(err) {
				continue
			}
			return nil, err
		}
		for name, raw := range m {
			if err := add(kind, name, raw); err != nil {
				return nil, err
			}
		}
	}
	// Listings that are a list of names with bodies.
	for kind, path := range map[string]string{kindComponent: "/_component_template?flat_settings=true", kindIndex: "/_index_template?flat_settings=true"} {
		m := map[string][]map[string]json.RawMessage{}
		if err := s.c.get(ctx, path, &m); err != nil {
			if unknownCall(err) {
				continue
			}
			return nil, err
		}
		for _, e := range m[kind+"s"] {
			var name string
			if err := json.Unmarshal(e["name"], &name); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", s.target, path, err)
			}
			if err := add(kind, name, e[kind]); err != nil {
				return nil, err
			}
		}
	}
	if len(scripts) > 0 {
		m := map[string]json.RawMessage{}
		if err := json.Unmarshal(scripts, &m); err != nil {
			return nil, fmt.Errorf("%s: stored scripts: %w", s.target, err)
		}
		for name, raw := range m {
			if err := add(kindScript, name, raw); err != nil {
				return nil, err
			}
		}
	}
	set := map[string]map[string]json.RawMessage{}
	if err := s.c.get(ctx, "/_cluster/settings?flat_settings=true", &set); err != nil {
		return nil, err
	}
	for _, kind := range []string{kindPersistent, kindTransient} {
		for name, raw := range set[kind] {
			if err := add(kind, name, raw); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// serverObject says whether the server itself makes the object, as newer versions do for their own indices.
func serverObject(key string, body []byte) bool {
	kind, name, _ := strings.Cut(key, "/")
	return kind != kindPersistent && kind != kindTransient && (strings.HasPrefix(name, ".") || strings.Contains(string(body), `"managed":true`))
}

func objectPath(kind, name string) string {
	switch kind {
	case kindScript:
		return "/_scripts/" + esc(name)
	case kindPipeline:
		return "/_ingest/pipeline/" + esc(name)
	}
	return "/_" + kind + "/" + esc(name)
}

// putObject writes a template, pipeline or script.
func (s *session) putObject(ctx context.Context, kind, name string, body []byte) error {
	b := json.RawMessage(body)
	if kind == kindScript {
		b = json.RawMessage(`{"script":` + string(body) + `}`)
	}
	return s.c.put(ctx, objectPath(kind, name), b)
}

// splitObjects says what of kinds must be removed and written to make live equal to want, in order.
func splitObjects(live, want map[string][]byte, kinds []string) (remove, write []string) {
	for _, k := range kinds {
		var names []string
		for key, b := range want {
			if strings.HasPrefix(key, k+"/") && string(live[key]) != string(b) {
				names = append(names, key)
			}
		}
		slices.Sort(names)
		write = append(write, names...)
	}
	for _, k := range slices.Backward(kinds) {
		var names []string
		for key := range live {
			if _, ok := want[key]; !ok && strings.HasPrefix(key, k+"/") {
				names = append(names, key)
			}
		}
		slices.Sort(names)
		remove = append(remove, names...)
	}
	return remove, write
}

// setSettings writes cluster settings; nil removes. Blocks go alone: while one is in force the
// server refuses a request that also changes anything else.
func (s *session) setSettings(ctx context.Context, set map[string]json.RawMessage) error {
	rest := map[string]map[string]json.RawMessage{}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		kind, name, _ := strings.Cut(key, "/")
		v := set[key]
		if v == nil {
			v = json.RawMessage("null")
		}
		if strings.HasPrefix(name, "cluster.blocks.") {
			if err := s.c.do(ctx, http.MethodPut, "/_cluster/settings", map[string]any{kind: map[string]any{name: v}}, nil); err != nil {
				return err
			}
			continue
		}
		if rest[kind] == nil {
			rest[kind] = map[string]json.RawMessage{}
		}
		rest[kind][name] = v
	}
	if len(rest) == 0 {
		return nil
	}
	return s.c.put(ctx, "/_cluster/settings", rest)
}

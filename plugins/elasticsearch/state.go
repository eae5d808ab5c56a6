package elasticsearch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// index is one index of the cluster, as it is now or as a backup describes it.
type index struct {
	Name       string
	UUID       string
	History    string // given to an index that was restored while closed: its content changed, its uuid did not
	Closed     bool
	Stream     string // the data stream it belongs to, or empty
	Definition []byte // canonical: aliases, mappings, settings, state; without what a restore cannot keep
	Replicas   int
	Shards     map[int]shard // empty when they are not reached
	Bytes      int64         // of the primaries
	Primaries  int
	Window     int // index.max_result_window: the largest page it gives; 0: the server's own default
}

// shard is the state of one primary.
type shard struct {
	Docs  int64 // Lucene's own count, nested documents included
	MaxNo int64 // the highest sequence number given
	Bytes int64
	Node  string // the id of the node that holds it
}

// position identifies the content of an index for as long as its life does.
func (x *index) position() string {
	if len(x.Shards) > 256 { // a list that long is no small attribute any more
		h := sha256.New()
		for _, n := range slices.Sorted(maps.Keys(x.Shards)) {
			fmt.Fprintf(h, "%d:%d ", n, x.Shards[n].MaxNo)
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(x.Shards)) {
		fmt.Fprintf(&b, "%d:%d ", n, x.Shards[n].MaxNo)
	}
	return strings.TrimSpace(b.String())
}

// life identifies the index for as long as its content can only change by writes.
func (x *index) life() string {
	if x.History != "" {
		return x.UUID + "/" + x.History
	}
	return x.UUID
}

// complete says that all primaries answered.
func (x *index) complete() bool { return len(x.Shards) == x.Primaries && x.Primaries > 0 }

// state is what the cluster holds.
type state struct {
	Indices map[string]*index // user indices by name
	Streams map[string][]byte // data streams: canonical, without uuids
	Objects map[string][]byte // "kind/name" → canonical body
	Foreign []string          // kinds of cluster metadata that this plugin does not know
	Skipped []string          // the server's own indices that were left out
}

func (st *state) names() []string { return slices.Sorted(maps.Keys(st.Indices)) }

// own names the indices of this product.
const own = ".cso-backup"

// systemPrefixes begin the names of indices that belong to the server and are neither backed up nor touched.
var systemPrefixes = []string{".security", ".opendistro_security", ".opendistro-", ".plugins-ml", ".geoip_databases", ".async-search", ".ds-.slm", ".ds-ilm-history", ".slm-history"}

// serverOwn says whether an index is the server's or this product's. Kibana's, and whatever
// else begins with a dot, is user data.
func serverOwn(name string) bool {
	if strings.HasPrefix(name, own) || name == ".tasks" {
		return true
	}
	return slices.ContainsFunc(systemPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// clusterState is the part of GET /_cluster/state/metadata that is used.
type clusterState struct {
	Metadata map[string]json.RawMessage `json:"metadata"`
}

// knownMetadata are the kinds of cluster metadata that this plugin handles, or that are no data.
var knownMetadata = []string{"cluster_uuid", "cluster_uuid_committed", "cluster_coordination", "templates", "indices", "index-graveyard", "component_template",
	"index_template", "ingest", "stored_scripts", "repositories", "data_stream", "settings", "persistent_settings", "transient_settings", "hashes_of_consistent_settings", "version", "reserved_state",
	"node_shutdown", "desired_nodes", "health", "decommissionedAttribute", "weighted_shard_routing", "nodes"}

// state reads all definitions; and the state of all shards.
func (s *session) state(ctx context.Context) (*state, error) {
	st := &state{Indices: map[string]*index{}, Streams: map[string][]byte{}}
	var cs clusterState
	if err := s.c.get(ctx, "/_cluster/state/metadata?filter_path=metadata.*,-metadata.indices.*.mappings,-metadata.indices.*.settings,-metadata.indices.*.aliases", &cs); err != nil {
		return nil, err
	}
	states := map[string]struct {
		State string `json:"state"`
	}{}
	if b := cs.Metadata["indices"]; len(b) > 0 {
		if err := json.Unmarshal(b, &states); err != nil {
			return nil, fmt.Errorf("%s: cluster state: %w", s.target, err)
		}
	}
	for k, v := range cs.Metadata {
		if !slices.Contains(knownMetadata, k) && string(v) != "{}" {
			st.Foreign = append(st.Foreign, k)
		}
	}
	slices.Sort(st.Foreign)
	member, err := st.streams(cs.Metadata["data_stream"])
	if err != nil {
		return nil, fmt.Errorf("%s: data streams: %w", s.target, err)
	}
	r, err := s.c.send(ctx, http.MethodGet, "/_all?expand_wildcards=all&flat_settings=true", "", nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	js := newStream(r)
	err = js.object(func(name string) error {
		b, err := js.value()
		if err != nil {
			return err
		}
		if serverOwn(name) {
			if !strings.HasPrefix(name, own) {
				st.Skipped = append(st.Skipped, name)
			}
			return nil
		}
		x, err := define(name, states[name].State == "close", b)
		if err != nil {
			return fmt.Errorf("index %s: %w", name, err)
		}
		x.Stream = member[name]
		st.Indices[name] = x
		return nil
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: definitions: %w", s.target, err)
	}
	if err := s.shards(ctx, st); err != nil {
		return nil, err
	}
	st.Objects, err = s.objects(ctx, cs.Metadata["stored_scripts"])
	return st, err
}

// streams reads the data streams and says to which one an index belongs.
func (st *state) streams(raw json.RawMessage) (map[string]string, error) {
	member := map[string]string{}
	if len(raw) == 0 {
		return member, nil
	}
	var m struct {
		Streams map[string]map[string]any `json:"data_stream"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	for name, d := range m.Streams {
		if serverOwn(".ds-" + name) {
			continue
		}
		list, _ := d["indices"].([]any)
		var names []string
		for _, x := range list {
			if m, ok := x.(map[string]any); ok {
				n, _ := m["index_name"].(string)
				names = append(names, n)
				member[n] = name
			}
		}
		d["indices"] = names
		b, err := encode(d)
		if err != nil {
			return nil, err
		}
		st.Streams[name] = b
	}
	return member, nil
}

// dropped are settings that a restore, a clone or the server itself gives anew.
func dropped(key string) bool {
	switch key {
	case "index.uuid", "index.history.uuid", "index.verified_before_close":
		return true
	}
	for _, p := range []string{"index.version.", "index.resize.", "index.routing.allocation.initial_recovery.", "index.shrink."} {
		if strings.HasPrefix(key, p) {
			return true
		}
	}
	return false
}

func define(name string, closed bool, raw []byte) (*index, error) {
	var d struct {
		Aliases  map[string]any `json:"aliases"`
		Mappings map[string]any `json:"mappings"`
		Settings map[string]any `json:"settings"`
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	if err := dec.Decode(&d); err != nil {
		return nil, err
	}
	x := &index{Name: name, Closed: closed, Shards: map[int]shard{}}
	x.UUID, _ = d.Settings["index.uuid"].(string)
	x.History, _ = d.Settings["index.history.uuid"].(string)
	text := func(k string) int {
		v, _ := d.Settings[k].(string)
		n, _ := strconv.Atoi(v)
		return n
	}
	x.Primaries, x.Replicas, x.Window = text("index.number_of_shards"), text("index.number_of_replicas"), text("index.max_result_window")
	maps.DeleteFunc(d.Settings, func(k string, v any) bool { return v == nil || dropped(k) })
	maps.DeleteFunc(d.Aliases, func(k string, _ any) bool { return strings.HasPrefix(k, own) })
	if d.Settings["index.routing_partition_size"] == "1" { // the default, which a clone spells out
		delete(d.Settings, "index.routing_partition_size")
	}
	if d.Settings["index.auto_expand_replicas"] != nil && d.Settings["index.auto_expand_replicas"] != "false" {
		delete(d.Settings, "index.number_of_replicas") // follows the number of nodes
	}
	out := map[string]any{"aliases": d.Aliases, "mappings": d.Mappings, "settings": d.Settings, "state": "open"}
	if closed {
		out["state"] = "close"
	}
	var err error
	x.Definition, err = encode(out)
	return x, err
}

// shards reads the state of every primary. Of a closed index nothing but the sequence numbers counts.
func (s *session) shards(ctx context.Context, st *state) error {
	r, err := s.c.send(ctx, http.MethodGet, "/_stats/docs,store?level=shards&expand_wildcards=all&forbid_closed_indices=false"+
		"&filter_path=indices.*.uuid,indices.*.shards.*.routing.primary,indices.*.shards.*.routing.node,indices.*.shards.*.seq_no.max_seq_no,indices.*.shards.*.docs.count,indices.*.shards.*.store.size_in_bytes", "", nil)
	if err != nil {
		return err
	}
	defer r.Close()
	js := newStream(r)
	err = js.object(func(top string) error {
		if top != "indices" {
			_, err := js.value()
			return err
		}
		return js.object(func(name string) error {
			b, err := js.value()
			if err != nil {
				return err
			}
			if x := st.Indices[name]; x != nil {
				return x.count(b)
			}
			return nil
		})
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: statistics: %w", s.target, err)
	}
	return nil
}

func (x *index) count(b []byte) error {
	var d struct {
		UUID   string `json:"uuid"`
		Shards map[string][]struct {
			Routing struct {
				Primary bool   `json:"primary"`
				Node    string `json:"node"`
			} `json:"routing"`
			SeqNo struct {
				Max int64 `json:"max_seq_no"`
			} `json:"seq_no"`
			Docs struct {
				Count int64 `json:"count"`
			} `json:"docs"`
			Store struct {
				Size int64 `json:"size_in_bytes"`
			} `json:"store"`
		} `json:"shards"`
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return fmt.Errorf("index %s: %w", x.Name, err)
	}
	if d.UUID != x.UUID {
		return nil // replaced meanwhile: nothing is known of its shards
	}
	for n, copies := range d.Shards {
		k, err := strconv.Atoi(n)
		if err != nil {
			return fmt.Errorf("index %s: shard %q", x.Name, n)
		}
		for _, c := range copies {
			if c.Routing.Primary {
				x.Shards[k] = shard{c.Docs.Count, c.SeqNo.Max, c.Store.Size, c.Routing.Node}
				x.Bytes += c.Store.Size
			}
		}
	}
	return nil
}

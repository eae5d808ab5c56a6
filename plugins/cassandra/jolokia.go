package cassandra

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// jolokia speaks JMX over HTTP (https://jolokia.org/reference/html/manual/jolokia_protocol.html), 2.5 or
// newer: older ones cannot pass the set of directories that an import takes.
type jolokia struct {
	c    *config
	http *http.Client
}

func newJolokia(c *config) jolokia {
	return jolokia{c, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

const (
	storageService = "org.apache.cassandra.db:type=StorageService"
	guardrails     = "org.apache.cassandra.db:type=Guardrails"
)

// call makes one request and decodes its value into out, unless nil.
func (j jolokia) call(ctx context.Context, request map[string]any, out any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	doing := fmt.Sprintf("%v %v%v", request["type"], request["operation"], request["attribute"])
	doing = strings.ReplaceAll(doing, "<nil>", "")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, j.c.jolokia, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: option jolokia: %w: %w", j.c.target, err, plugins.ErrConfig)
	}
	resp, err := j.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: JMX %s: %w", j.c.target, doing, ctx.Err())
		}
		return fmt.Errorf("%s: JMX %s: %w: %w: check option jolokia in the estate file", j.c.target, doing, plugins.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	var answer struct {
		Status int             `json:"status"`
		Error  string          `json:"error"`
		Value  json.RawMessage `json:"value"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 16<<20)).Decode(&answer); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("%s: JMX %s: %w: is this a Jolokia agent?", j.c.target, doing, err)
	}
	if answer.Status != http.StatusOK {
		if len(answer.Error) > 600 {
			answer.Error = answer.Error[:600]
		}
		return fmt.Errorf("%s: JMX %s on %s: %w: %s: see the server's system.log", j.c.target, doing, j.c.self.Name, plugins.ErrUnavailable, answer.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, out)
}

func (j jolokia) exec(ctx context.Context, bean, operation string, out any, args ...any) error {
	return j.call(ctx, map[string]any{"type": "exec", "mbean": bean, "operation": operation, "arguments": args}, out)
}

func (j jolokia) snapshot(ctx context.Context, tag string, keyspaces []string) error {
	return j.exec(ctx, storageService, "takeSnapshot(java.lang.String,java.util.Map,[Ljava.lang.String;)", nil,
		tag, map[string]string{"skipFlush": "false"}, keyspaces)
}

func (j jolokia) clearSnapshot(ctx context.Context, tag string) error {
	return j.exec(ctx, storageService, "clearSnapshot(java.lang.String,[Ljava.lang.String;)", nil, tag, []string{})
}

func (j jolokia) load(ctx context.Context, keyspace, table, dir string, foreign bool) error {
	bean := fmt.Sprintf("org.apache.cassandra.db:keyspace=%s,table=%s,type=Tables", keyspace, table)
	var failed []string
	// resetLevel, clearRepaired, verifySSTables, verifyTokens, invalidateCaches, extendedVerify, copyData: nodetool's defaults
	err := j.exec(ctx, bean, "importNewSSTables(java.util.Set,boolean,boolean,boolean,boolean,boolean,boolean,boolean)", &failed,
		[]string{dir}, true, true, true, !foreign, true, false, false)
	if err == nil && len(failed) > 0 {
		err = fmt.Errorf("%s: import into %s.%s: %w: %s: see the server's system.log", j.c.target, keyspace, table, plugins.ErrData, strings.Join(failed, ", "))
	}
	return err
}

func (j jolokia) cleanup(ctx context.Context, keyspace string) error {
	return j.exec(ctx, storageService, "forceKeyspaceCleanup(int,java.lang.String,[Ljava.lang.String;)", nil, 0, keyspace, []string{})
}

func (j jolokia) status(ctx context.Context) ([]string, error) {
	var dead []string
	for _, a := range []string{"UnreachableNodes", "LeavingNodes", "JoiningNodes", "MovingNodes"} {
		var list []string
		if err := j.call(ctx, map[string]any{"type": "read", "mbean": storageService, "attribute": a}, &list); err != nil {
			return nil, err
		}
		for _, n := range list {
			dead = append(dead, n+" is "+strings.ToLower(strings.TrimSuffix(a, "Nodes")))
		}
	}
	return dead, nil
}

func (j jolokia) setGuardrail(ctx context.Context, levels string) error {
	return j.call(ctx, map[string]any{"type": "write", "mbean": guardrails, "attribute": "WriteConsistencyLevelsDisallowedCSV", "value": levels}, nil)
}

// forget drops the caches by their own beans.
func (j jolokia) forget(ctx context.Context) error {
	for _, cache := range []string{"RolesCache", "CredentialsCache", "PermissionsCache"} {
		if err := j.exec(ctx, "org.apache.cassandra.auth:type="+cache, "invalidate", nil); err != nil {
			return err
		}
	}
	return nil
}

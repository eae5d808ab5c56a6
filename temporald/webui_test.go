package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func httpDo(t *testing.T, method, path string, header map[string]string, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(short(t), method, shared.ui+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if k == "Host" {
			req.Host = v
		} else {
			req.Header.Set(k, v)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func TestWebUIReads(t *testing.T) {
	for path, want := range map[string]string{
		"/":                                        "<!doctype html>",
		"/namespaces/cso/workflows":                "<!doctype html>",
		"/api/v1/settings":                         `"DisableWriteActions":true`,
		"/api/v1/cluster-info":                     shared.cluster,
		"/api/v1/namespaces":                       `"cso"`,
		"/api/v1/namespaces/cso/workflows":         "{",
		"/api/v1/namespaces/cso/workflow-count":    "{",
		"/api/v1/namespaces/cso/schedules":         "{",
		"/api/v1/namespaces/cso/search-attributes": "CsoOperation",
		"/api/v1/namespaces/cso/workflows?query=CsoOperation%3D%27backup%27": "{",
		"/healthz": "OK",
	} {
		status, body := httpDo(t, http.MethodGet, path, nil, "")
		if status != http.StatusOK || !strings.Contains(strings.ToLower(body), strings.ToLower(want)) {
			t.Errorf("GET %s: %d %.200s", path, status, body)
		}
		if strings.Contains(body, canaryID) {
			t.Errorf("GET %s shows the canary: %.300s", path, body)
		}
	}
}

func TestWebUIWritesNothing(t *testing.T) {
	base := "/api/v1/namespaces/cso/workflows"
	auth := map[string]string{"Authorization": "x", "Content-Type": "application/json"} // skips the UI's own CSRF check
	for _, c := range []struct{ method, path string }{
		{"POST", base + "/w1"},
		{"POST", base + "/w1/signal/s"},
		{"POST", base + "/w1/terminate"},
		{"DELETE", "/api/v1/namespaces/cso/schedules/s"},
		{"PUT", "/api/v1/namespaces/cso"},
		// These three went through the UI's own DisableWriteActions to the server.
		{"POST", base + "/w1/signal/%2Fquery%2F"},
		{"POST", base + "/x%2Fquery%2Fy"},
		{"POST", base + "/x%2Fquery%2Fy/terminate"},
		{"POST", base + "/x/query/y/terminate"},
		{"POST", base + "/x/query/y%2Fterminate"},
		{"POST", base + "/x/query/.."},
		{"POST", "/api/v1/namespaces/temporal-system/workflows/x/query/y"},
	} {
		status, body := httpDo(t, c.method, c.path, auth, `{}`)
		if status != http.StatusMethodNotAllowed && !(strings.HasSuffix(c.path, "..") && status != http.StatusOK) {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
}

func TestWebUIForThisHostOnly(t *testing.T) {
	for _, c := range []struct {
		header map[string]string
		want   int
	}{
		{map[string]string{"Host": "localhost:8233"}, 200},
		{map[string]string{"Host": "127.0.0.1"}, 200},
		{map[string]string{"Host": "[::1]:9000"}, 200},
		{map[string]string{"Host": "evil.example"}, 403},
		{map[string]string{"Host": "evil.example:8233"}, 403},
		{map[string]string{"Host": "127.0.0.1.evil.example"}, 403},
		{map[string]string{"Host": "localhost.evil.example:80"}, 403},
		{map[string]string{"Origin": "http://evil.example"}, 403},
		{map[string]string{"Origin": "null"}, 403},
		{map[string]string{"Origin": shared.ui}, 200},
	} {
		if status, body := httpDo(t, http.MethodGet, "/api/v1/cluster-info", c.header, ""); status != c.want {
			t.Errorf("%v: %d instead of %d: %.100s", c.header, status, c.want, body)
		}
	}
}

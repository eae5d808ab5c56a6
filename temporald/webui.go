package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/route"
	"github.com/temporalio/ui-server/v2/ui"

	"github.com/csobackup/cso_backupnrestore/internal/pki"
)

// webUI is the Temporal Web UI behind a guard. Its handlers run inside this process without a port of their own, so
// there is no way around the guard.
type webUI struct {
	address string
	http    *http.Server
}

type staticConfig struct{ cfg *uiconfig.Config }

func (s staticConfig) GetConfig() (*uiconfig.Config, error) { return s.cfg, nil }

// startWebUI serves the UI on 127.0.0.1:port. It has no login, so it never listens elsewhere: every local user of the
// host may read the history of runs, which holds names and sizes, never data or secrets.
func startWebUI(certs, frontend string, port int, log *slog.Logger) (*webUI, error) {
	cfg, err := uiconfig.NewConfigProviderWithRefresh(staticConfig{&uiconfig.Config{
		TemporalGRPCAddress: frontend, EnableUI: true, DefaultNamespace: namespace, HideLogs: true, DisableNewsFetch: true,
		// These hide buttons. What protects is the guard below and, behind it, the role of the ui certificate.
		DisableWriteActions: true, WorkflowTerminateDisabled: true, WorkflowCancelDisabled: true, WorkflowSignalDisabled: true,
		WorkflowUpdateDisabled: true, WorkflowResetDisabled: true, WorkflowPauseDisabled: true, BatchActionsDisabled: true,
		StartWorkflowDisabled: true, ActivityCommandsDisabled: true,
		TLS: uiconfig.TLS{
			CaFile: filepath.Join(certs, pki.CA+".crt"), CertFile: filepath.Join(certs, pki.UI+".crt"), KeyFile: filepath.Join(certs, pki.UI+".key"),
			ServerName: pki.ServerName, EnableHostVerification: true,
		},
	}})
	if err != nil {
		return nil, fmt.Errorf("configure the Web UI: %w", err)
	}
	assets, err := ui.Assets()
	if err != nil {
		return nil, fmt.Errorf("find the pages of the Web UI: %w", err)
	}
	if assets, err = fs.Sub(assets, "local"); err != nil {
		return nil, fmt.Errorf("find the pages of the Web UI: %w", err)
	}
	e := echo.New()
	e.Use(middleware.Recover(), middleware.Secure(), middleware.Gzip())
	route.SetHealthRoute(e)
	if err := route.SetAPIRoutes(e, cfg, nil); err != nil {
		return nil, fmt.Errorf("connect the Web UI: %w", err)
	}
	if err := route.SetUIRoutes(e, "", assets, cfg); err != nil {
		return nil, fmt.Errorf("set up the pages of the Web UI: %w", err)
	}
	route.SetRenderRoute(e, "/")

	address := net.JoinHostPort(loopback, strconv.Itoa(port))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the Web UI: %w; choose another --ui-port", err)
	}
	w := &webUI{address: address, http: &http.Server{Handler: guard(e), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}}
	go func() {
		if err := w.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the Web UI stopped; restart cso-temporald to have it back", "error", err)
		}
	}()
	return w, nil
}

func (w *webUI) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if w.http.Shutdown(ctx) != nil { // pages that follow a run hold their request open
		_ = w.http.Close()
	}
}

// queryPath is the one kind of POST the UI needs to read: a workflow query. It is matched on the path as sent, where a
// "/" inside a name is %2F: matched on the decoded path, ".../signal/%2Fquery%2F" would pass for a query.
var queryPath = regexp.MustCompile(`^/api/v1/namespaces/` + namespace + `/workflows/[^/]+/query/[A-Za-z0-9._-]+$`)

// guard lets reading through and nothing else, and only for a Host that names this machine: a page from elsewhere
// whose name was rebound to 127.0.0.1 sends its own name.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !localHost(r.Host) {
			http.Error(w, "open the Temporal Web UI as http://127.0.0.1:8233 on the installer-vm, or through an ssh tunnel to it", http.StatusForbidden)
			return
		}
		if o := r.Header.Get("Origin"); o != "" {
			if u, err := url.Parse(o); err != nil || u.Host != r.Host {
				http.Error(w, "requests from other sites are refused", http.StatusForbidden)
				return
			}
		}
		switch {
		case r.Method == http.MethodGet || r.Method == http.MethodHead:
		case r.Method == http.MethodPost && queryPath.MatchString(r.URL.EscapedPath()):
			r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		default:
			http.Error(w, "the Web UI only reads; use cso_backupnrestore to change something", http.StatusMethodNotAllowed)
			return
		}
		r.Header.Del("Authorization") // means nothing here, and the UI would pass it on
		next.ServeHTTP(w, r)
	})
}

func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return host == "localhost" || host == loopback || host == "::1" || host == "[::1]"
}

package zookeeper

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Health asks every member for its role and reads the whole tree once, without access lists.
func (s *session) Health(ctx context.Context) (plugins.Health, error) {
	h := plugins.Health{Grade: plugins.Green, Members: len(s.members)}
	worse := func(g plugins.Grade, format string, args ...any) {
		h.Reasons = append(h.Reasons, fmt.Sprintf(format, args...))
		if h.Grade != plugins.Red {
			h.Grade = g
		}
	}
	leaders, voters, serving, silent := 0, 0, 0, 0
	for _, m := range s.members {
		st, err := s.status(ctx, m)
		if ctx.Err() != nil {
			return h, ctx.Err()
		}
		switch {
		case err != nil:
			worse(plugins.Amber, "%s does not answer: %v: start it", m.Name, err)
			continue
		case st.mode == "" && st.refused:
			serving, silent = serving+1, silent+1 // `srvr` is not on the server's list of commands
			continue
		case st.mode == "":
			worse(plugins.Amber, "%s runs but serves nobody: the ensemble has no quorum, or the server is starting", m.Name)
			continue
		}
		serving++
		if h.Version == "" {
			h.Version = st.version
		} else if h.Version != st.version {
			worse(plugins.Amber, "%s runs version %s, another member %s", m.Name, st.version, h.Version)
		}
		switch st.mode {
		case "leader":
			leaders, voters = leaders+1, voters+1
		case "follower":
			voters++
		case "standalone":
			if len(s.members) > 1 {
				worse(plugins.Red, "%s runs alone, not as a member of an ensemble: correct its configuration", m.Name)
			}
		}
	}
	if h.Version == "" {
		h.Version = "unknown"
	}
	if serving == 0 {
		worse(plugins.Red, "no member serves clients")
		return h, nil
	}
	if silent == 0 && len(s.members) > 1 && leaders != 1 {
		worse(plugins.Red, "%d leaders among the members, want one", leaders)
	}
	t, err := s.walk(ctx, "", walkOptions{})
	if err != nil {
		if ctx.Err() != nil {
			return h, ctx.Err()
		}
		worse(plugins.Red, "the tree cannot be read: %v", err)
		return h, nil
	}
	defer t.spool.Close()
	h.Empty = true
	for p, n := range t.nodes {
		h.Estimate += int64(len(p) + n.data.Len() + 32)
		if p != "/" {
			h.Empty = false
		}
	}
	if len(t.denied) > 0 {
		h.Empty = false
		worse(plugins.Red, "%d znodes cannot be read: %s: give the super user's credentials in auth_file", len(t.denied), some(t.denied))
	} else if len(s.auth) == 0 {
		worse(plugins.Amber, "there are no credentials: znodes with access lists could not be restored: give the super user's in auth_file")
	}
	return h, nil
}

// version is what the first member that tells says; "unknown" when `srvr` is not allowed.
func (s *session) version(ctx context.Context) string {
	for _, m := range s.members {
		if st, err := s.status(ctx, m); err == nil && st.version != "" {
			return st.version
		}
	}
	return "unknown"
}

// status is what `srvr` says.
type status struct {
	mode, version string
	refused       bool // the server does not allow the command
}

func (s *session) status(ctx context.Context, m plugins.Member) (status, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var conn net.Conn
	var err error
	if s.tls != nil {
		conn, err = (&tls.Dialer{Config: s.tls}).DialContext(ctx, "tcp", m.Address)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", m.Address)
	}
	if err != nil {
		return status{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(conn, "srvr"); err != nil {
		return status{}, err
	}
	b, err := io.ReadAll(io.LimitReader(conn, 64<<10))
	if len(b) == 0 {
		return status{}, errors.Join(err, errors.New("no answer"))
	}
	return parseStatus(string(b)), nil
}

func parseStatus(text string) status {
	st := status{refused: strings.Contains(text, "not in the whitelist") || strings.Contains(text, "not executed")}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch name {
		case "Mode":
			st.mode = value
		case "Zookeeper version":
			v, _, _ := strings.Cut(value, ",")
			v, _, _ = strings.Cut(v, "-")
			st.version = v
		}
	}
	return st
}

package mariadb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

var _ plugins.Discoverer = (*Plugin)(nil)

// answersWithin is how long a local server may take to accept a connection.
const answersWithin = time.Second

// The standard places, of the packages of Debian and of the Red Hat family.
var (
	serverFiles = []string{"etc/my.cnf", "etc/mysql/my.cnf"} // the server reads both, in this order
	sockets     = []string{"run/mysqld/mysqld.sock", "var/lib/mysql/mysql.sock"}
	clientFile  = "root/.my.cnf"
)

// Discover finds the server of this host by its option files and its socket.
// Credentials come from /root/.my.cnf; without that file the session logs in
// as root through the socket, as the packages set it up. No answer: no target.
func (p *Plugin) Discover(ctx context.Context) ([]plugins.Target, error) {
	conf := map[string]string{}
	for _, f := range serverFiles {
		read, err := readDefaults(p.place(f), serverGroups...)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("find local servers: %w: write an estate file if the worker may not read it", err)
		}
		for k, v := range read {
			conf[k] = v
		}
	}
	m := plugins.Member{Name: "mariadb-1", Address: listens(conf), Options: map[string]string{}}
	switch socket := p.socket(ctx, conf["socket"]); {
	case socket != "":
		m.Options["socket"] = socket
	case m.Address == "" || len(conf) == 0 || !answers(ctx, "tcp", m.Address):
		return nil, ctx.Err()
	}
	if d := conf["datadir"]; filepath.IsAbs(d) {
		m.Options["data_dir"] = d
	}
	switch client, err := readDefaults(p.place(clientFile), clientGroups...); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("credentials of the local server: %w: run the worker as root, or write an estate file", err)
	case client["user"] != "" || client["password"] != "":
		m.Options["defaults_file"] = p.place(clientFile)
	}
	return []plugins.Target{{Component: "mariadb", Instance: plugins.DefaultInstance, Members: []plugins.Member{m}}}, nil
}

func (p *Plugin) place(path string) string { return filepath.Join("/", p.root, path) }

// socket is the first socket at which a server answers: the configured one, or a standard one.
func (p *Plugin) socket(ctx context.Context, configured string) string {
	var places []string
	if filepath.IsAbs(configured) {
		places = append(places, configured)
	} else {
		for _, s := range sockets {
			places = append(places, p.place(s))
		}
	}
	for _, s := range places {
		if answers(ctx, "unix", s) {
			return s
		}
	}
	return ""
}

// listens is the address for clients on this host; "" with skip-networking.
func listens(conf map[string]string) string {
	if v, ok := conf["skip-networking"]; ok && v != "0" && v != "OFF" {
		return ""
	}
	host, _, _ := strings.Cut(conf["bind-address"], ",") // may be a list
	port := conf["port"]
	if ip := net.ParseIP(host); host == "" || host == "*" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	if port == "" || port == "0" {
		port = "3306"
	}
	return net.JoinHostPort(host, port)
}

func answers(ctx context.Context, network, address string) bool {
	c, err := (&net.Dialer{Timeout: answersWithin}).DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

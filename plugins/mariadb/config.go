package mariadb

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Options of a member: user, password_file or password_env, or both from a
// defaults_file (an option file with a [client] section), socket, data_dir
// (the server's, when it is on this VM: gives the free space), and for TLS
// tls (yes, skip-verify or no), ca_file, cert_file, key_file, server_name.
var optionNames = map[string]bool{
	"user": true, "password_file": true, "password_env": true, "defaults_file": true, "socket": true, "data_dir": true, "control_program": true,
	"tls": true, "ca_file": true, "cert_file": true, "key_file": true, "server_name": true,
}

// config turns a member into connection settings. The socket wins when it exists here.
func config(m plugins.Member) (*mysql.Config, error) {
	for o := range m.Options {
		if !optionNames[o] {
			return nil, fmt.Errorf("member %s: unknown option %q: %w: remove it from the estate file", m.Name, o, plugins.ErrConfig)
		}
	}
	c := mysql.NewConfig()
	if err := credentials(c, m); err != nil {
		return nil, err
	}
	var err error
	c.Net, c.Addr = "tcp", m.Address
	if s := m.Options["socket"]; s != "" {
		if _, err := os.Stat(s); err == nil || m.Address == "" {
			c.Net, c.Addr = "unix", s
		}
	}
	if c.Net == "tcp" {
		if c.Addr == "" {
			return nil, fmt.Errorf("member %s: no address and no socket: %w: give one in the estate file", m.Name, plugins.ErrConfig)
		}
		if _, port, err := net.SplitHostPort(c.Addr); err != nil {
			return nil, fmt.Errorf("member %s: address %q: %w: want host:port", m.Name, c.Addr, plugins.ErrConfig)
		} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return nil, fmt.Errorf("member %s: address %q: %w: port is not a number", m.Name, c.Addr, plugins.ErrConfig)
		}
		if c.TLS, err = tlsConfig(m); err != nil {
			return nil, err
		}
	}
	c.Timeout = 10 * time.Second
	c.AllowNativePasswords = true
	c.CheckConnLiveness = true
	c.MaxAllowedPacket = 0 // the server's own
	c.ConnectionAttributes = "program_name:cso_backupnrestore"
	c.Logger = &mysql.NopLogger{} // every error is returned; the driver's own log adds noise on standard error
	return c, nil
}

// credentials sets user and password. What the estate file names itself wins over the defaults_file.
func credentials(c *mysql.Config, m plugins.Member) error {
	var err error
	if c.Passwd, err = m.Secret("password"); err != nil {
		return err
	}
	c.User = m.Options["user"]
	if f := m.Options["defaults_file"]; f != "" {
		client, err := readDefaults(f, clientGroups...)
		if err != nil {
			return fmt.Errorf("member %s: defaults_file: %w: check that the worker may read it", m.Name, err)
		}
		if c.User == "" {
			c.User = client["user"]
		}
		if m.Options["password_file"] == "" && m.Options["password_env"] == "" {
			c.Passwd = client["password"]
		}
	}
	if c.User == "" {
		c.User = "root"
	}
	return nil
}

func tlsConfig(m plugins.Member) (*tls.Config, error) {
	mode := m.Options["tls"]
	if mode == "" && m.Options["ca_file"] != "" {
		mode = "yes"
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: m.Options["server_name"]}
	switch mode {
	case "", "no":
		return nil, nil
	case "yes":
	case "skip-verify":
		t.InsecureSkipVerify = true // asked for by name in the estate file
	default:
		return nil, fmt.Errorf("member %s: option tls is %q: %w: want yes, skip-verify or no", m.Name, mode, plugins.ErrConfig)
	}
	if t.ServerName == "" {
		t.ServerName, _, _ = net.SplitHostPort(m.Address)
	}
	if f := m.Options["ca_file"]; f != "" {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("member %s: %w: check ca_file in the estate file", m.Name, err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("member %s: %s holds no certificate: %w: check ca_file in the estate file", m.Name, f, plugins.ErrConfig)
		}
	}
	if f := m.Options["cert_file"]; f != "" {
		pair, err := tls.LoadX509KeyPair(f, m.Options["key_file"])
		if err != nil {
			return nil, fmt.Errorf("member %s: %w: check cert_file and key_file in the estate file", m.Name, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcd connects with etcd's own client.
func (b *bench) etcd() *clientv3.Client {
	b.t.Helper()
	pem, err := os.ReadFile(b.value("LAB_ETCD_1_CACERT"))
	b.check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{b.value("LAB_ETCD_1_ENDPOINT")}, DialTimeout: 5 * time.Second,
		Username: b.value("LAB_ETCD_1_USER"), Password: b.value("LAB_ETCD_1_PASSWORD"), TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, Logger: zap.NewNop()})
	b.check(err)
	b.t.Cleanup(func() { _ = c.Close() })
	return c
}

// alarm raises NOSPACE, with which etcd refuses every write and answers
// every read, or takes it back.
func (b *bench) alarm(on bool) {
	b.t.Helper()
	if !on {
		b.etcdctl("alarm", "disarm")
		return
	}
	c := b.etcd()
	m, err := c.MemberList(b.t.Context())
	b.check(err)
	_, err = pb.NewMaintenanceClient(c.ActiveConnection()).Alarm(b.t.Context(),
		&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: m.Members[0].ID, Alarm: pb.AlarmType_NOSPACE})
	b.check(err)
}

// switchValues begins to note every value of the maintenance switch; the
// function it returns gives them.
func (b *bench) switchValues() func() []string {
	b.t.Helper()
	c := b.etcd()
	now, err := c.Get(b.t.Context(), "/lb/maintenance")
	b.check(err)
	from := now.Header.Revision + 1
	return func() []string {
		b.t.Helper()
		last, err := c.Get(b.t.Context(), "/lb/maintenance")
		b.check(err)
		if last.Kvs[0].ModRevision < from {
			return nil // nobody has written it
		}
		var out []string
		for w := range c.Watch(b.t.Context(), "/lb/maintenance", clientv3.WithRev(from), clientv3.WithProgressNotify()) {
			b.check(w.Err())
			for _, e := range w.Events {
				out = append(out, e.Type.String()+" "+string(e.Kv.Value))
				if e.Type == clientv3.EventTypePut {
					out[len(out)-1] = string(e.Kv.Value)
				}
				if e.Kv.ModRevision >= last.Kvs[0].ModRevision {
					return out
				}
			}
		}
		return out
	}
}

// Package zkwire is a small client for what a backup needs of ZooKeeper and
// the common Go client does not offer: many reads in one message (multiRead),
// container and TTL nodes inside a multi, and pipelining on one session, whose
// requests the server carries out in order. The protocol is that of Apache
// ZooKeeper 3.4 to 3.9 (zookeeper.jute, ZooDefs.java, MultiOperationRecord.java).
package zkwire

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	xidPing   = -2
	xidAuth   = -4
	xidEvent  = -1
	maxPacket = 1 << 30 // of an answer, in bytes
	keepSize  = 8 << 20 // a larger buffer is not kept for the next answer
)

// Options of a connection.
type Options struct {
	Auth    []Auth
	Timeout time.Duration // of the session, as asked for; the server decides
	TLS     *tls.Config   // nil: no TLS
}

// Auth is a pair of scheme and credentials, as `addauth` takes them.
type Auth struct{ Scheme, Auth string }

// Conn is one session on one connection. Its calls must not overlap. After an
// error other than a Code it is of no further use.
type Conn struct {
	conn    net.Conn
	r       *bufio.Reader
	buf     []byte
	xid     int32
	session int64

	mu    sync.Mutex // of w and sent
	w     *bufio.Writer
	sent  time.Time
	stop  chan struct{}
	ended sync.WaitGroup
}

// Dial connects, opens a session and presents the credentials.
func Dial(ctx context.Context, addr string, o Options) (*Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if o.TLS != nil {
		cfg := o.TLS.Clone()
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = net.SplitHostPort(addr) // an empty name fails the handshake
		}
		tc := tls.Client(nc, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, err
		}
		nc = tc
	}
	c := &Conn{conn: nc, r: bufio.NewReaderSize(nc, 256<<10), w: bufio.NewWriterSize(nc, 256<<10), stop: make(chan struct{})}
	timeout, err := c.handshake(ctx, o)
	if err != nil {
		nc.Close()
		return nil, err
	}
	c.ended.Add(1)
	go c.keepAlive(timeout / 3)
	return c, nil
}

// Session is the id of the session.
func (c *Conn) Session() int64 { return c.session }

func (c *Conn) handshake(ctx context.Context, o Options) (timeout time.Duration, err error) {
	defer c.watch(ctx)()
	var e Encoder
	e.Int(0) // protocol version
	e.Long(0)
	e.Int(int32(o.Timeout.Milliseconds()))
	e.Long(0)
	e.Bytes(make([]byte, 16))
	e.Bool(false) // a read-only server is of no use
	if err := c.send(e.B); err != nil {
		return 0, err
	}
	b, err := c.packet()
	if err != nil {
		return 0, fmt.Errorf("the server closed the connection: it may have no quorum, or too many clients: %w", err)
	}
	d := Decoder{B: b}
	d.Int()
	timeout = time.Duration(d.Int()) * time.Millisecond
	if c.session = d.Long(); d.Err != nil || timeout <= 0 {
		return 0, errors.New("the server gave no session")
	}
	for _, a := range o.Auth {
		e := Encoder{}
		e.Int(xidAuth)
		e.Int(opAuth)
		e.Int(0)
		e.String(a.Scheme)
		e.Bytes([]byte(a.Auth))
		if err := c.send(e.B); err != nil {
			return 0, err
		}
		for {
			xid, rep, err := c.receive()
			if err != nil {
				return 0, fmt.Errorf("scheme %s: %w: %w", a.Scheme, AuthFailed, err)
			}
			if xid == xidAuth {
				if rep.Code != OK {
					return 0, fmt.Errorf("scheme %s: %w", a.Scheme, rep.Code)
				}
				break
			}
		}
	}
	return timeout, nil
}

// watch makes blocked reads and writes fail once ctx ends; the returned function ends the watching.
func (c *Conn) watch(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// keepAlive pings while nothing else is sent. The answers are read by the next call.
func (c *Conn) keepAlive(every time.Duration) {
	defer c.ended.Done()
	t := time.NewTicker(max(every/2, time.Millisecond))
	defer t.Stop()
	var e Encoder
	e.Int(xidPing)
	e.Int(opPing)
	for {
		select {
		case <-c.stop:
			return
		case <-t.C:
		}
		c.mu.Lock()
		idle := time.Since(c.sent) >= every/2
		c.mu.Unlock()
		if idle && c.send(e.B) != nil {
			return // the next call fails too, and says why
		}
	}
}

func (c *Conn) send(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.put(p); err != nil {
		return err
	}
	return c.w.Flush()
}

// put is called with the lock held.
func (c *Conn) put(p []byte) error {
	c.sent = time.Now()
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(p)))
	if _, err := c.w.Write(n[:]); err != nil {
		return err
	}
	_, err := c.w.Write(p)
	return err
}

func (c *Conn) packet() ([]byte, error) {
	var h [4]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return nil, err
	}
	n := int(int32(binary.BigEndian.Uint32(h[:])))
	if n < 0 || n > maxPacket {
		return nil, fmt.Errorf("answer of %d bytes: this is no ZooKeeper server, or a node has too many children", n)
	}
	b := c.buf
	if cap(b) < n {
		b = make([]byte, n)
		if n <= keepSize {
			c.buf = b
		}
	}
	b = b[:n]
	_, err := io.ReadFull(c.r, b)
	return b, err
}

func (c *Conn) receive() (int32, Reply, error) {
	b, err := c.packet()
	if err != nil {
		return 0, Reply{}, err
	}
	d := Decoder{B: b}
	xid, rep := d.Int(), Reply{Zxid: d.Long(), Code: Code(d.Int())}
	rep.Body = d.B
	return xid, rep, d.Err
}

// Stream sends what next gives, up to window requests ahead of the answers,
// until next says false, and hands each answer to done in order. next runs beside done.
func (c *Conn) Stream(ctx context.Context, window int, next func() (Request, bool, error), done func(Reply) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer c.watch(ctx)()
	inFlight := make(chan int32, window)
	gone := make(chan struct{})
	var sendErr error
	go func() {
		defer close(inFlight)
		sendErr = c.pump(inFlight, gone, next)
	}()
	err := c.answers(inFlight, done)
	close(gone)
	if err != nil {
		c.conn.SetDeadline(time.Unix(1, 0)) // a sender that waits for the server ends too
	}
	for range inFlight { // until the sender has ended
	}
	if sendErr != nil && (err == nil || ctx.Err() == nil && errors.Is(err, io.EOF)) {
		err = sendErr
	}
	if ctx.Err() != nil && err != nil {
		return ctx.Err()
	}
	return err
}

func (c *Conn) pump(inFlight chan<- int32, gone <-chan struct{}, next func() (Request, bool, error)) error {
	for {
		req, more, err := next()
		if err != nil || !more {
			c.mu.Lock()
			defer c.mu.Unlock()
			return errors.Join(err, c.w.Flush())
		}
		c.xid = max(1, c.xid+1)
		var e Encoder
		e.B = make([]byte, 0, 8+len(req.Body))
		e.Int(c.xid)
		e.Int(req.Op)
		e.B = append(e.B, req.Body...)
		c.mu.Lock()
		err = c.put(e.B)
		c.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case inFlight <- c.xid:
			continue
		default:
		}
		// The window is full: what was written must leave before waiting for answers.
		c.mu.Lock()
		err = c.w.Flush()
		c.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case inFlight <- c.xid:
		case <-gone:
			return nil
		}
	}
}

func (c *Conn) answers(inFlight <-chan int32, done func(Reply) error) error {
	for want := range inFlight {
		for {
			xid, rep, err := c.receive()
			if err != nil {
				return fmt.Errorf("connection to the server lost: %w", err)
			}
			if xid == xidPing || xid == xidEvent {
				continue
			}
			if xid != want {
				return fmt.Errorf("answer to request %d where %d was due", xid, want)
			}
			if err := done(rep); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// Do sends one request and hands over its answer.
func (c *Conn) Do(ctx context.Context, req Request, done func(Reply) error) error {
	sent := false
	return c.Stream(ctx, 1, func() (Request, bool, error) {
		first := !sent
		sent = true
		return req, first, nil
	}, done)
}

// Close ends the session, so that its ephemeral nodes go at once, and the connection.
func (c *Conn) Close() error {
	close(c.stop)
	c.conn.SetDeadline(time.Now().Add(2 * time.Second))
	c.ended.Wait()
	c.xid = max(1, c.xid+1)
	var e Encoder
	e.Int(c.xid)
	e.Int(opClose)
	if c.send(e.B) == nil {
		for {
			if _, err := c.packet(); err != nil {
				break
			}
		}
	}
	return c.conn.Close()
}

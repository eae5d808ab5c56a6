package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// coordinate makes this process one coordinator of the cluster that another process simulates: it can be killed and frozen by
// itself. It hands connections on to that coordinator, which lives there as long as this process does.
func coordinate(ctx context.Context, cluster, name, listen string) error {
	for ctx.Err() == nil {
		if err := attach(ctx, cluster, name, listen); err != nil {
			return err
		}
		select { // the cluster's process is not there, or has gone
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// attach serves until the cluster's process or this one ends.
func attach(ctx context.Context, cluster, name, listen string) error {
	body, err := json.Marshal(map[string]string{"server": name})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cluster+"/_sim/attach", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("--coordinator-of: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil // tried again
	}
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	to, err := in.ReadString('\n')
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("attach to %s as %s: HTTP %d %s", cluster, name, resp.StatusCode, to)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println("endpoint", "http://"+l.Addr().String())
	inner, stop := context.WithCancel(ctx)
	var open sync.WaitGroup
	open.Go(func() {
		<-inner.Done()
		_ = l.Close()
	})
	open.Go(func() {
		defer stop()
		_, _ = io.Copy(io.Discard, in) // ends with the cluster's process
	})
	for {
		c, err := l.Accept()
		if err != nil {
			stop()
			_ = resp.Body.Close()
			open.Wait()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		open.Go(func() { handOn(inner, c, strings.TrimPrefix(strings.TrimSpace(to), "http://")) })
	}
}

func handOn(ctx context.Context, from net.Conn, address string) {
	defer from.Close()
	to, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return
	}
	defer to.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		go func() {
			defer stop()
			_, _ = io.Copy(way[0], way[1])
		}()
	}
	<-ctx.Done()
}

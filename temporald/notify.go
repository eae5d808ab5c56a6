package main

import (
	"fmt"
	"net"
	"os"
)

// notifySupervisor tells systemd that the server is ready, so that what needs it (the control worker) starts after it.
// Without systemd's NOTIFY_SOCKET it does nothing. See sd_notify(3).
func notifySupervisor(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the supervisor %s: %w; check NotifyAccess= of the unit", state, err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell the supervisor %s: %w; check NotifyAccess= of the unit", state, err)
	}
	return nil
}

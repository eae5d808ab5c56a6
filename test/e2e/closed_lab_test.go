package e2e

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab"
)

// crowded is a lab whose store is a small volume of its own.
var crowded = &shared{components: []string{"etcd", "secrets", "certificates"}, prepare: prepareCrowded}

// prepareCrowded mounts the volume while nobody uses the store; TestDisk takes it away again.
func prepareCrowded(l *lab.Lab) error {
	ctx, done := lifetime()
	defer done()
	store := l.Dir() + "/backups"
	return errors.Join(l.Stop(ctx, "worker"), os.MkdirAll(store, 0o700),
		unix.Mount("none", store, "tmpfs", 0, "size=64m,mode=700"), l.StartMember(ctx, "worker"))
}

func lifetime() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}

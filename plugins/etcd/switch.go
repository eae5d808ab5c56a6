package etcd

import (
	"context"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// ReadSwitch reads the product's maintenance switch.
func (s *session) ReadSwitch(ctx context.Context) (plugins.SwitchState, error) {
	r, err := s.c.Get(ctx, s.cfg.switchKey)
	if err != nil {
		return plugins.SwitchState{}, s.cfg.wrap("read the maintenance switch", err)
	}
	if len(r.Kvs) == 0 {
		return plugins.SwitchState{}, nil
	}
	return plugins.SwitchState{Present: true, Value: string(r.Kvs[0].Value)}, nil
}

// WriteSwitch makes the maintenance switch exactly the state given, and writes nothing where it already is.
func (s *session) WriteSwitch(ctx context.Context, st plugins.SwitchState) error {
	now, err := s.ReadSwitch(ctx)
	if err != nil || now == st {
		return err
	}
	if st.Present {
		_, err = s.c.Put(ctx, s.cfg.switchKey, st.Value)
	} else {
		_, err = s.c.Delete(ctx, s.cfg.switchKey)
	}
	return s.cfg.wrap("write the maintenance switch", err)
}

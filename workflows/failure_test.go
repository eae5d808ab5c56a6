package workflows

import "testing"

// TestJoined: a plugin that names its target is not repeated.
func TestJoined(t *testing.T) {
	for _, c := range []struct{ doing, wrong, want string }{
		{"etcd", "etcd: no leader", "etcd: no leader"},
		{"copy of etcd", "etcd: no leader: refused", "copy of etcd: no leader: refused"},
		{"copy of etcd@east", "etcd: no leader", "copy of etcd@east: etcd: no leader"},
		{"etcd", "no leader", "etcd: no leader"},
		{"verify the backup", "piece 3: damaged", "verify the backup: piece 3: damaged"},
	} {
		if got := joined(c.doing, c.wrong); got != c.want {
			t.Errorf("joined(%q, %q) = %q, want %q", c.doing, c.wrong, got, c.want)
		}
	}
}

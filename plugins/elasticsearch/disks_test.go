package elasticsearch

import "testing"

// TestWatermark: https://www.elastic.co/guide/en/elasticsearch/reference/8.19/modules-cluster.html#disk-based-shard-allocation
func TestWatermark(t *testing.T) {
	const gb = 1 << 30
	for _, c := range []struct {
		mark, headroom   string
		total, available int64
		reached          bool
	}{
		{"85%", "", 100 * gb, 16 * gb, false},
		{"85%", "", 100 * gb, 15 * gb, true},
		{"0.85", "", 100 * gb, 15 * gb, true},
		{"85%", "200gb", 10000 * gb, 1000 * gb, false}, // a large disk: 90% full, and 200 GB are enough
		{"85%", "200gb", 10000 * gb, 200 * gb, true},
		{"85%", "200gb", 100 * gb, 20 * gb, false}, // a small one: 200 GB are more than 15%
		{"85%", "-1", 10000 * gb, 1000 * gb, true},
		{"1.5gb", "", 100 * gb, 2 * gb, false},
		{"1.5gb", "", 100 * gb, gb, true},
		{"500mb", "-1", 100 * gb, gb, false},
		{"", "", 100 * gb, 0, false},
		{"many", "", 100 * gb, 0, false},
	} {
		if got := watermark(c.mark, c.headroom)(c.total, c.available); got != c.reached {
			t.Errorf("watermark %q, headroom %q, %d of %d GB available: reached is %v", c.mark, c.headroom, c.available/gb, c.total/gb, got)
		}
	}
}

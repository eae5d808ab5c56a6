package cli

import "time"

// rateWindow is over which time a rate is taken: long enough not to flicker, short enough to follow.
const rateWindow = 15 * time.Second

// rate is bytes per second of one unit in one phase, from heartbeats.
type rate struct {
	phase string
	at    []time.Time
	n     []int64
}

func (r *rate) bytes() int64 {
	if len(r.n) == 0 {
		return 0
	}
	return r.n[len(r.n)-1]
}

// add takes a heartbeat; one that was seen before is not a new fact.
func (r *rate) add(at time.Time, n int64) {
	if l := len(r.at); l > 0 && !at.After(r.at[l-1]) {
		return
	}
	r.at, r.n = append(r.at, at), append(r.n, n)
	for len(r.at) > 2 && at.Sub(r.at[1]) >= rateWindow {
		r.at, r.n = r.at[1:], r.n[1:]
	}
}

func (r *rate) perSecond() float64 {
	l := len(r.at)
	if l < 2 {
		return 0
	}
	return float64(r.n[l-1]-r.n[0]) / r.at[l-1].Sub(r.at[0]).Seconds()
}

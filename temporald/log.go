package main

import (
	"sync"
	"time"

	tlog "go.temporal.io/server/common/log"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// serverLog is the Temporal server's own logger, to standard error, at level and above.
func serverLog(level zap.AtomicLevel) tlog.Logger {
	zl := tlog.BuildZapLogger(tlog.Config{Level: "warn"}).WithOptions(
		zap.IncreaseLevel(level), zap.WrapCore(func(c zapcore.Core) zapcore.Core { return withoutProbes{c} }))
	return tlog.NewZapLogger(zl)
}

// withoutProbes drops the one error that means no fault: workers ask at their start, with a poll too short to be given
// a task, whether they may poll at all, and the server would report each with a stack trace.
type withoutProbes struct{ zapcore.Core }

const probeMessage = "Context timeout is too short for long poll API."

// With implements zapcore.Core.
func (w withoutProbes) With(fields []zapcore.Field) zapcore.Core {
	return withoutProbes{w.Core.With(fields)}
}

// Check implements zapcore.Core.
func (w withoutProbes) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Message == probeMessage {
		return ce
	}
	return w.Core.Check(e, ce)
}

// logLimit lets through logsPerSecond lines a second: a client that is refused retries, and must not fill the disk
// with the log of it.
type logLimit struct {
	mu      sync.Mutex
	second  int64
	n       int
	dropped int
}

const logsPerSecond = 20

// allow reports whether to log now, and how many lines were held back since the last one.
func (l *logLimit) allow() (dropped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now().Unix(); now != l.second {
		l.second, l.n = now, 0
	}
	if l.n++; l.n > logsPerSecond {
		l.dropped++
		return 0, false
	}
	dropped, l.dropped = l.dropped, 0
	return dropped, true
}

package ssefanout

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A condition is what those who look from outside get to see of an upstream.
type condition struct {
	since     time.Time // when the present state of the connection began
	address   string    // of the origin, if the source names it
	attempts  int       // in a row that have failed
	next      time.Time // when the origin is or was asked again
	lastError string    // why the last connection has ended, if one has
	failed    time.Time // when that was
}

// The lines that tell of an upstream's state. An operator should need no
// others to know what happened, since when, who is waiting, and what is next.

const (
	// firstReminder is how long an outage lasts before the log says that it goes
	// on. It does so again each time the outage has doubled, and at least once in
	// reminders: what fails in between would drown an operator with many topics.
	firstReminder = time.Minute
	reminders     = time.Hour
)

// nowConnected takes note of a connection of a topic that was without for some time. What
// it returns tells of it.
func (u *upstream) nowConnected(c *connection, without time.Duration) (tell func()) {
	now := time.Now()
	seen := *u.condition.Load()
	seen.since, seen.attempts, seen.next, seen.address = now, 0, time.Time{}, c.answer.address()
	u.condition.Store(&seen)

	fields := []zap.Field{
		zap.String("last_event_id", c.id),
		zap.Int("attempt", u.failures+1),
		zap.Duration("duration", without),
	}
	if c.replaces != nil {
		fields = append(fields, zap.String("reason", "reloaded"))
	}
	u.since = now
	u.missing = false
	return func() { u.tell(zapcore.InfoLevel, "upstream connected", "upstream_connected", seen.address, fields...) }
}

func (u *upstream) logLost(c *connection, delay time.Duration) {
	now := time.Now()
	lost, clean := !c.accepted.IsZero(), c.outcome.err == nil && c.outcome.verdict == verdictStream
	duration := now.Sub(u.since)
	if lost {
		u.since = now
	}
	u.condition.Store(&condition{
		since:     u.since,
		address:   c.outcome.address,
		attempts:  u.failures,
		next:      now.Add(delay),
		lastError: c.outcome.explain(),
		failed:    now,
	})

	// The first line of an outage says enough, but for a reminder, and for why
	// there is no other stream, which what broke the last one seldom tells.
	level, message, event := zapcore.DebugLevel, "upstream unavailable, retrying", ""
	if oversized := errors.Is(c.outcome.err, sse.ErrEventTooLarge); u.failures == 1 || oversized && !u.oversized {
		level = zapcore.WarnLevel
		u.oversized = u.oversized || oversized
	}
	switch {
	case clean:
		level, message, event = zapcore.InfoLevel, "upstream ended, reconnecting", "upstream_lost"
	case lost:
		message, event = "upstream lost, reconnecting", "upstream_lost"
	case !u.missing:
		level, event = zapcore.WarnLevel, "upstream_unavailable"
		u.missing = true
	}
	if !clean && !now.Before(u.remindAt) {
		duration = now.Sub(u.troubled)
		u.remindAt = now.Add(min(duration, reminders))
		level, message = zapcore.WarnLevel, "upstream still unavailable, retrying"
	}
	fields := []zap.Field{
		zap.Int("attempt", u.failures),
		zap.Duration("delay", delay),
		zap.Duration("duration", duration),
		zap.Int("events", c.events),
	}
	if c.outcome.verdict != verdictStream {
		fields = append(fields, zap.Stringer("verdict", c.outcome.verdict), zap.Int("status", c.outcome.status))
	}
	if c.outcome.err != nil {
		fields = append(fields, zap.String("error", c.outcome.explain()))
	}
	u.tell(level, message, event, c.outcome.address, fields...)
}

// logDeaf says that the source of a connection that was silent for too long goes on.
func (u *upstream) logDeaf(address string) {
	u.tell(zapcore.WarnLevel, "waiting for a source that has not noticed that its request is over", "", address,
		zap.Duration("idle_timeout", time.Duration(u.topic.pool.opts.IdleTimeout)),
		zap.String("hint", "its next bytes end it, and the origin is asked again then; have the origin send comments, or raise idle_timeout"))
}

func (u *upstream) logClosed(level zapcore.Level, reason string, status int) {
	fields := []zap.Field{
		zap.String("reason", reason),
		zap.Duration("duration", time.Since(u.since)),
	}
	if status != 0 {
		fields = append(fields, zap.Int("status", status))
	}
	u.tell(level, "upstream closed", "upstream_closed", u.condition.Load().address, fields...)
}

// tell writes a line of the log, and emits an event, if it has a name, with what
// the line says.
func (u *upstream) tell(level zapcore.Level, message, event, address string, fields ...zap.Field) {
	t := u.topic
	fields = append([]zap.Field{
		zap.String("topic", t.name),
		zap.Int("subscribers", t.subscriberCount()),
	}, fields...)
	if address != "" {
		fields = append(fields, zap.String("upstream", address))
	}
	t.pool.log().Log(level, message, fields...)
	if event != "" {
		t.pool.lineage.announcer(t.pool).announce(event, fields)
	}
}

// explain says why a connection has ended. Of an error of Caddy's it leaves out
// the line of code and the status: who reads this looks for what has happened.
func (out *outcome) explain() string {
	why := out.err
	if httpErr, ok := errors.AsType[caddyhttp.HandlerError](why); ok && httpErr.Err != nil {
		why = httpErr.Err
	}
	switch {
	case errors.Is(why, http.ErrAbortHandler):
		// It is all that reverse_proxy says when the origin has hung up.
		return strings.Replace(why.Error(), http.ErrAbortHandler.Error(), "the connection to the origin broke", 1)
	case why != nil:
		return why.Error()
	case out.verdict == verdictStream:
		return "the origin has ended the stream"
	}
	return fmt.Sprintf("the origin has answered with status %d: %s", out.status, out.verdict)
}

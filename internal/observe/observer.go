// Package observe is what operators get to know. What the engine tells goes into the log, to
// whoever has subscribed to Caddy's events, and into metrics. An operator should need no other
// lines to know what happened, since when, who is waiting, and what is next.
package observe

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

const (
	// firstReminder is how long an outage lasts before the log says that it goes
	// on. It does so again each time the outage has doubled, and at least once in
	// reminders: what fails in between would drown an operator with many topics.
	firstReminder = time.Minute
	reminders     = time.Hour
)

// An Outage is what the log has said of a topic without a connection.
type Outage struct {
	missing   bool      // that the origin is unavailable
	oversized bool      // that an event is larger than allowed
	remindAt  time.Time // when it says again that the outage goes on
}

// A Source is a relay.Source that keeps what the log has said of its topic. It belongs to the
// goroutine that feeds the topic.
type Source interface{ Outage() *Outage }

// An Observer tells what the engine of one pool does. It implements relay.Observer except
// Refused, Restricted and Retired, which the pool has.
type Observer struct {
	// Announcer returns who emits events now, or nil.
	Announcer func() *Announcer

	notices Notices
	logger  atomic.Pointer[zap.Logger]
}

// SetLogger sets where lines go from now on.
func (o *Observer) SetLogger(logger *zap.Logger) { o.logger.Store(logger) }

// Log returns where lines go.
func (o *Observer) Log() *zap.Logger { return o.logger.Load() }

// Connected implements relay.Observer.
func (o *Observer) Connected(t *relay.Topic, c relay.Connected) {
	fields := []zap.Field{
		zap.String("last_event_id", c.LastEventID),
		zap.Int("attempt", c.Attempt),
		zap.Duration("duration", c.Without),
	}
	if c.Reloaded {
		fields = append(fields, zap.String("reason", "reloaded"))
	}
	o.tell(t, zapcore.InfoLevel, "upstream connected", "upstream_connected", c.Address, fields...)
}

// Lost implements relay.Observer.
func (o *Observer) Lost(t *relay.Topic, l relay.Lost) {
	now, seen := time.Now(), t.Source().(Source).Outage()
	duration, clean := l.For, l.Clean()
	if l.Accepted {
		seen.missing = false
	}
	if l.Attempts == 1 {
		seen.remindAt = now.Add(firstReminder)
	}

	// The first line of an outage says enough, but for a reminder, and for why
	// there is no other stream, which what broke the last one seldom tells.
	level, message, event := zapcore.DebugLevel, "upstream unavailable, retrying", ""
	if oversized := errors.Is(l.Outcome.Err, sse.ErrEventTooLarge); l.Attempts == 1 || oversized && !seen.oversized {
		level = zapcore.WarnLevel
		seen.oversized = seen.oversized || oversized
	}
	switch {
	case clean:
		level, message, event = zapcore.InfoLevel, "upstream ended, reconnecting", "upstream_lost"
	case l.Accepted:
		message, event = "upstream lost, reconnecting", "upstream_lost"
	case !seen.missing:
		level, event = zapcore.WarnLevel, "upstream_unavailable"
		seen.missing = true
	}
	if !clean && !now.Before(seen.remindAt) {
		duration = l.Outage
		seen.remindAt = now.Add(min(duration, reminders))
		level, message = zapcore.WarnLevel, "upstream still unavailable, retrying"
	}
	fields := []zap.Field{
		zap.Int("attempt", l.Attempts),
		zap.Duration("delay", l.Delay),
		zap.Duration("duration", duration),
		zap.Int("events", l.Events),
	}
	if l.Outcome.Verdict != relay.Stream {
		fields = append(fields, zap.Stringer("verdict", l.Outcome.Verdict), zap.Int("status", l.Outcome.Status))
	}
	if l.Outcome.Err != nil {
		fields = append(fields, zap.String("error", l.Outcome.Explain()))
	}
	o.tell(t, level, message, event, l.Outcome.Address, fields...)
}

// Closed implements relay.Observer.
func (o *Observer) Closed(t *relay.Topic, c relay.Closed) {
	fields := []zap.Field{
		zap.String("reason", c.Reason),
		zap.Duration("duration", c.For),
	}
	if c.Status != 0 {
		fields = append(fields, zap.Int("status", c.Status))
	}
	level := zapcore.InfoLevel
	if c.Quiet {
		level = zapcore.DebugLevel
	}
	o.tell(t, level, "upstream closed", "upstream_closed", c.Address, fields...)
}

// Stayed implements relay.Observer.
func (o *Observer) Stayed(t *relay.Topic, out *relay.Outcome) {
	o.Log().Warn("not switching the upstream to the new configuration, whose route has refused",
		zap.String("topic", t.Name()),
		zap.Int("status", out.Status),
		zap.String("error", out.Explain()))
}

// Drained implements relay.Observer.
func (o *Observer) Drained(t *relay.Topic, out *relay.Outcome) {
	o.Log().Info("ending subscribers, as the new configuration does not lead them where it leads a stranger",
		zap.String("topic", t.Name()),
		zap.Int("subscribers", t.Subscribers()),
		zap.String("reason", out.Explain()))
}

// CaughtUp implements relay.Observer.
func (o *Observer) CaughtUp(t *relay.Topic, c relay.CaughtUp) {
	o.Log().Debug("catch-up ended",
		zap.String("topic", t.Name()),
		zap.String("last_event_id", c.LastEventID),
		zap.Int("events", c.Events),
		zap.Bool("resumed", c.Resumed),
		zap.Duration("duration", c.Took),
		zap.String("splice", strings.Trim(c.Missing+"; "+c.Jumping, "; ")),
		zap.NamedError("reason", c.Reason))
}

// Dropped implements relay.Observer.
func (o *Observer) Dropped(catchups uint64, bound int) {
	if n, due := o.notices.Count(relay.EndSlow, catchups); due {
		o.Log().Warn("ending clients that are too slow to read what they have missed, as too much is held for them",
			zap.Uint64("catch_ups", n),
			zap.Int("bytes_held_at_most", bound),
			zap.String("hint", "they come back and go on where they are"))
	}
}

// Yielded implements relay.Observer.
func (o *Observer) Yielded(t *relay.Topic) {
	if c := o.Log().Check(zapcore.DebugLevel, "ending a topic to make room for another"); c != nil {
		c.Write(zap.String("topic", t.Name()))
	}
	if n, due := o.notices.Count(relay.EndYielded, 1); due {
		o.Log().Warn("ending topics of the client address that has opened most, as a limit is reached",
			zap.String("reason", string(relay.RejectTopics)),
			zap.Uint64("topics", n))
	}
}

// Misfit implements relay.Observer.
func (o *Observer) Misfit(t *relay.Topic, m relay.Misfit, times uint64) {
	if n, due := o.notices.Count(m, times); due {
		o.Log().Error("refusing an impossible change of state, which is a bug of sse_fanout",
			zap.String("topic", t.Name()),
			zap.String("of", m.Of),
			zap.String("state", m.State),
			zap.String("event", m.Event),
			zap.Uint64("times", n),
			zap.String("hint", "report this line, with those of the topic before it; if its clients get nothing, end the topic through the admin API: they come back to a new one"))
	}
}

// Left implements relay.Observer.
func (o *Observer) Left(s *relay.Subscriber, l relay.Left) {
	if c := o.Log().Check(zapcore.DebugLevel, "subscriber ended"); c != nil {
		c.Write(zap.String("topic", s.Topic().Name()),
			zap.Uint64("subscriber", s.Number()),
			zap.Stringer("outcome", s.Outcome()),
			zap.String("reason", string(l.Reason)),
			zap.Uint64("events", l.Events),
			zap.Uint64("bytes", l.Bytes),
			zap.Duration("duration", time.Since(s.Started())))
	}
}

// Delivered implements relay.Observer.
func (o *Observer) Delivered(took time.Duration) { DeliverySeconds.Observe(took.Seconds()) }

// Deaf says that the source of a connection that was silent for too long goes on.
func (o *Observer) Deaf(t *relay.Topic, address string, idleTimeout time.Duration) {
	o.tell(t, zapcore.WarnLevel, "waiting for a source that has not noticed that its request is over", "", address,
		zap.Duration("idle_timeout", idleTimeout),
		zap.String("hint", "its next bytes end it, and the origin is asked again then; have the origin send comments, or raise idle_timeout"))
}

// tell writes a line of the log, and emits an event, if it has a name, with what
// the line says.
func (o *Observer) tell(t *relay.Topic, level zapcore.Level, message, event, address string, fields ...zap.Field) {
	fields = append([]zap.Field{
		zap.String("topic", t.Name()),
		zap.Int("subscribers", t.Subscribers()),
	}, fields...)
	if address != "" {
		fields = append(fields, zap.String("upstream", address))
	}
	o.Log().Log(level, message, fields...)
	if event != "" {
		o.Announcer().Announce(event, fields)
	}
}

// LimitReached says that clients are turned away, if why is a limit.
func (o *Observer) LimitReached(why relay.Rejection) {
	if !slices.Contains(relay.Limits, why) {
		return
	}
	if n, due := o.notices.Count(why, 1); due {
		o.Log().Warn("turning clients away, as a limit is reached",
			zap.String("reason", string(why)),
			zap.Uint64("clients", n))
	}
}

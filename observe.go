package ssefanout

import (
	"errors"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// What the engine tells goes into the log, to whoever has subscribed to Caddy's events,
// and into metrics. An operator should need no other lines to know what happened, since
// when, who is waiting, and what is next.

const (
	// firstReminder is how long an outage lasts before the log says that it goes
	// on. It does so again each time the outage has doubled, and at least once in
	// reminders: what fails in between would drown an operator with many topics.
	firstReminder = time.Minute
	reminders     = time.Hour
)

// An outage is what the log has said of a topic without a connection.
type outage struct {
	missing   bool      // that the origin is unavailable
	oversized bool      // that an event is larger than allowed
	remindAt  time.Time // when it says again that the outage goes on
}

// Connected implements relay.Observer.
func (p *pool) Connected(t *relay.Topic, c relay.Connected) {
	fields := []zap.Field{
		zap.String("last_event_id", c.LastEventID),
		zap.Int("attempt", c.Attempt),
		zap.Duration("duration", c.Without),
	}
	if c.Reloaded {
		fields = append(fields, zap.String("reason", "reloaded"))
	}
	p.tell(t, zapcore.InfoLevel, "upstream connected", "upstream_connected", c.Address, fields...)
}

// Lost implements relay.Observer.
func (p *pool) Lost(t *relay.Topic, l relay.Lost) {
	now, seen := time.Now(), &upstreamOf(t).outage
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
	p.tell(t, level, message, event, l.Outcome.Address, fields...)
}

// Closed implements relay.Observer.
func (p *pool) Closed(t *relay.Topic, c relay.Closed) {
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
	p.tell(t, level, "upstream closed", "upstream_closed", c.Address, fields...)
}

// Stayed implements relay.Observer.
func (p *pool) Stayed(t *relay.Topic, out *relay.Outcome) {
	p.log().Warn("not switching the upstream to the new configuration, whose route has refused",
		zap.String("topic", t.Name()),
		zap.Int("status", out.Status),
		zap.String("error", out.Explain()))
}

// Drained implements relay.Observer.
func (p *pool) Drained(t *relay.Topic, out *relay.Outcome) {
	p.log().Info("ending subscribers, as the new configuration does not lead them where it leads a stranger",
		zap.String("topic", t.Name()),
		zap.Int("subscribers", t.Subscribers()),
		zap.String("reason", out.Explain()))
}

// Refused implements relay.Observer: it remembers what is no event stream.
func (p *pool) Refused(t *relay.Topic, out *relay.Outcome) {
	if out.Verdict != relay.NotStream {
		return
	}
	if out.Unhandled {
		p.explainNothingBehind(t)
	}
	p.passing.Remember(t.Key(), pass.NotStream, notStreamMemory)
}

// notStreamMemory is how long a key is known to be no event stream.
const notStreamMemory = time.Minute

// CaughtUp implements relay.Observer.
func (p *pool) CaughtUp(t *relay.Topic, c relay.CaughtUp) {
	p.log().Debug("catch-up ended",
		zap.String("topic", t.Name()),
		zap.String("last_event_id", c.LastEventID),
		zap.Int("events", c.Events),
		zap.Bool("resumed", c.Resumed),
		zap.Duration("duration", c.Took),
		zap.String("splice", strings.Trim(c.Missing+"; "+c.Jumping, "; ")),
		zap.NamedError("reason", c.Reason))
}

// Dropped implements relay.Observer.
func (p *pool) Dropped(catchups uint64, bound int) {
	if n, due := p.notices.count(relay.EndSlow, catchups); due {
		p.log().Warn("ending clients that are too slow to read what they have missed, as too much is held for them",
			zap.Uint64("catch_ups", n),
			zap.Int("bytes_held_at_most", bound),
			zap.String("hint", "they come back and go on where they are"))
	}
}

// Yielded implements relay.Observer.
func (p *pool) Yielded(t *relay.Topic) {
	if c := p.log().Check(zapcore.DebugLevel, "ending a topic to make room for another"); c != nil {
		c.Write(zap.String("topic", t.Name()))
	}
	if n, due := p.notices.count(relay.EndYielded, 1); due {
		p.log().Warn("ending topics of the client address that has opened most, as a limit is reached",
			zap.String("reason", string(relay.RejectTopics)),
			zap.Uint64("topics", n))
	}
}

// Left implements relay.Observer.
func (p *pool) Left(s *relay.Subscriber, l relay.Left) {
	if c := p.log().Check(zapcore.DebugLevel, "subscriber ended"); c != nil {
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
func (p *pool) Delivered(took time.Duration) { deliverySeconds.Observe(took.Seconds()) }

// logDeaf says that the source of a connection that was silent for too long goes on.
func (u *upstream) logDeaf(address string) {
	u.pool.tell(u.topic, zapcore.WarnLevel, "waiting for a source that has not noticed that its request is over", "", address,
		zap.Duration("idle_timeout", time.Duration(u.pool.opts.IdleTimeout)),
		zap.String("hint", "its next bytes end it, and the origin is asked again then; have the origin send comments, or raise idle_timeout"))
}

// tell writes a line of the log, and emits an event, if it has a name, with what
// the line says.
func (p *pool) tell(t *relay.Topic, level zapcore.Level, message, event, address string, fields ...zap.Field) {
	fields = append([]zap.Field{
		zap.String("topic", t.Name()),
		zap.Int("subscribers", t.Subscribers()),
	}, fields...)
	if address != "" {
		fields = append(fields, zap.String("upstream", address))
	}
	p.log().Log(level, message, fields...)
	if event != "" {
		p.lineage.announcer(p).announce(event, fields)
	}
}

// Interface guards
var _ relay.Observer = (*pool)(nil)

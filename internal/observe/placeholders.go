package observe

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/view"
)

// What other handlers of a client's request, and its line in the access log, get
// to know of us. Handler's documentation has the placeholders.

const placeholderPrefix = "http.sse_fanout."

// multiplexPrefix is that of the placeholders of sse_multiplex, which its documentation has.
const multiplexPrefix = "http.sse_multiplex."

// What becomes of a request that is not served as a subscriber; a relay.Joining is
// what becomes of one that is.
const (
	OutcomePassed   = "passed"
	OutcomeRejected = "rejected"
	OutcomeRefused  = "refused"

	// OutcomeMultiplexed is that of a request for a stream of a connection of
	// sse_multiplex, which goes on with it.
	OutcomeMultiplexed = "multiplexed"
)

// ReasonHandedOver is why a request has ended whose connection was handed over: its
// stream goes on, and nobody can say yet how it will end.
const ReasonHandedOver = "handed_over"

// accessLogKey is the field of the access log that has the rest as its fields:
// other handlers have topics, events and reasons too.
const accessLogKey = "sse_fanout"

// DescribeTopic tells which topic r has joined.
func DescribeTopic(r *http.Request, t *relay.Topic) {
	repl := request.ReplacerOf(r)
	repl.Set(placeholderPrefix+"topic", t.Name())
	repl.Set(placeholderPrefix+"topic.id", view.TopicID(t))
}

// Describe tells what has become of r, and why.
func Describe(r *http.Request, outcome, reason string) {
	repl := request.ReplacerOf(r)
	repl.Set(placeholderPrefix+"outcome", outcome)
	repl.Set(placeholderPrefix+"reason", reason)
	if outcome == OutcomePassed {
		return // another handler's request now: its line stays as it was
	}
	fields := []zap.Field{zap.String("outcome", outcome), zap.String("reason", reason)}
	if name, ok := repl.GetString(placeholderPrefix + "topic"); ok {
		fields = append(fields, zap.String("topic", name))
	}
	extendAccessLog(r, fields)
}

// DescribeEnd tells how a subscriber was served for as long as its request lasted.
func DescribeEnd(r *http.Request, s *relay.Reader, reason string) {
	outcome := s.Outcome().String()
	events, bytes := s.Delivered()
	repl := request.ReplacerOf(r)
	repl.Set(placeholderPrefix+"outcome", outcome)
	repl.Set(placeholderPrefix+"reason", reason)
	repl.Set(placeholderPrefix+"events", events)
	repl.Set(placeholderPrefix+"bytes", bytes)
	extendAccessLog(r, []zap.Field{
		zap.String("outcome", outcome),
		zap.String("reason", reason),
		zap.String("topic", s.Topic().Name()),
		zap.Uint64("events", events),
		zap.Uint64("bytes", bytes),
	})
}

// DescribeConnection tells how a connection of sse_multiplex was served.
func DescribeConnection(r *http.Request, number uint64, streams int, reason string) {
	request.ReplacerOf(r).Set(multiplexPrefix+"reason", reason)
	extendAccessLog(r, []zap.Field{
		zap.Uint64("connection", number),
		zap.Int("streams", streams),
		zap.String("reason", reason),
	})
}

// BeginConnection tells which connection of sse_multiplex a request is.
func BeginConnection(r *http.Request, number uint64, streams int) {
	repl := request.ReplacerOf(r)
	repl.Set(multiplexPrefix+"connection", number)
	repl.Set(multiplexPrefix+"streams", streams)
}

// BeginStream tells which stream of a connection of sse_multiplex a request is for.
func BeginStream(r *http.Request, alias string) {
	request.ReplacerOf(r).Set(multiplexPrefix+"alias", alias)
}

func extendAccessLog(r *http.Request, fields []zap.Field) {
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.Dict(accessLogKey, fields...))
	}
}

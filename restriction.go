package ssefanout

import (
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A restriction is what an answer of the origin says itself against sharing it
// with all clients of its topic. The zero value is none.
type restriction struct {
	// pass says that the answer is for one client, and why: requests for this
	// topic go through one to one.
	pass passReason

	// differs is the item of Vary for which requests pass, if there is one.
	differs string

	// vary has the headers by which the answer varies and which the key has not:
	// the clients join again with these in their key.
	vary []string
}

func (r *restriction) applies() bool { return r.pass != "" || len(r.vary) > 0 }

// err is what a client gets to hear that waits for a restricted answer.
func (r *restriction) err() error {
	if r.pass != "" {
		return r.pass
	}
	return joinAgainError(r.vary)
}

// restrictionOf returns what the header of an answer says against sharing it.
// learned has the headers that the topic's key has because of earlier answers.
func (o *Options) restrictionOf(header http.Header, learned []string) restriction {
	if !o.strip && len(headerValues(header, "Set-Cookie")) > 0 {
		return restriction{pass: passSetCookie}
	}
	var vary []string
	for name := range listItems(headerValues(header, "Vary")) {
		name = canonicalHeader(name)
		switch {
		case name == "*":
			return restriction{pass: passVary, differs: name}
		case slices.Contains(o.varyHeaders, name), slices.Contains(learned, name), slices.Contains(vary, name):
		case sameForAll(name):
		case joinsKey(name):
			vary = append(vary, name)
		default:
			return restriction{pass: passVary, differs: name}
		}
	}
	if len(vary) > 0 && len(learned)+len(vary) > maxLearned {
		return restriction{pass: passVary}
	}
	return restriction{vary: vary}
}

// restrictionOf returns what the header of an answer says against sharing it with
// the clients of t.
func (t *topic) restrictionOf(header http.Header) restriction {
	return t.pool.opts.restrictionOf(header, t.request.learned)
}

// headerValues returns the values of a header, given by its canonical name, also
// where a handler has set it under another spelling.
func headerValues(header http.Header, canonical string) []string {
	values := header[canonical]
	for name, others := range header {
		if name != canonical && canonicalHeader(name) == canonical {
			values = slices.Concat(values, others)
		}
	}
	return values
}

// listItems returns an iterator over the items of a header that is a list
// (RFC 9110, section 5.6.1).
func listItems(values []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, value := range values {
			for item := range strings.SplitSeq(value, ",") {
				if item = strings.TrimSpace(item); item != "" && !yield(item) {
					return
				}
			}
		}
	}
}

const (
	// passMemoryTime is how long a key is known to be answered for one client.
	passMemoryTime = time.Minute

	// sessionMemoryTime is how long a key is known to begin a session: what
	// speaks such a protocol does so for as long as it is deployed.
	sessionMemoryTime = time.Hour
)

// concludePersonal ends a topic whose answer is restricted. Clients that have no
// header yet pass or join again, unnoticed. The others are ended, and treated so
// when they come back.
func (u *upstream) concludePersonal(out *outcome) (delay time.Duration, over bool) {
	t, p := u.topic, u.topic.pool
	t.mu.Lock()
	admitted := t.admitted
	t.mu.Unlock()
	level := zapcore.DebugLevel
	if admitted {
		level = zapcore.InfoLevel
	}
	u.logClosed(level, string(endPersonal), out.status)
	p.explainRestriction(t, &out.restriction)
	t.restrict(out)
	return 0, true
}

// restrict makes the clients of t pass or join again, and ends those that were
// accepted.
func (t *topic) restrict(out *outcome) {
	p := t.pool
	switch restricted := &out.restriction; {
	case restricted.pass == passSession:
		p.passing.remember(t.key, passSession, sessionMemoryTime)
	case restricted.pass != "":
		p.passing.remember(t.key, restricted.pass, passMemoryTime)
	default:
		p.learn(t.request, restricted.vary)
	}
	p.detach(t) // before anybody joins again

	t.mu.Lock()
	t.refusal = &out.refusal
	admitted, eventful := t.admitted, t.eventful
	t.signal()
	t.mu.Unlock()
	if !admitted {
		return
	}
	e := ending{Reason: endPersonal}
	if eventful {
		// They have a stream to lose: they need not hurry, nor come back at once.
		e.Over = time.Duration(p.opts.StreamCloseDelay)
	}
	t.end(e)
}

// explainRestriction says once for each reason why streams are not shared, and
// what could be done.
func (p *pool) explainRestriction(t *topic, restricted *restriction) {
	explain := func(why passReason, header, message, hint string) {
		if p.hints.due(why, header) {
			fields := []zap.Field{zap.String("topic", t.name), zap.String("reason", string(why)), zap.String("hint", hint)}
			if header != "" {
				fields = append(fields, zap.String("header", header))
			}
			p.log().Info(message, fields...)
		}
	}
	switch restricted.pass {
	case passSetCookie:
		explain(passSetCookie, "", "not sharing an event stream whose answer sets a cookie",
			"set 'credentials strip' if the stream is public: the cookie is dropped then")
	case passSession:
		explain(passSession, "", "not sharing an event stream that begins with a session of its own",
			"nothing is wrong: such streams, as of MCP's HTTP+SSE transport, work one to one")
	case passVary:
		explain(passVary, restricted.differs, "not sharing an event stream whose answer varies with each client",
			"name the header in vary if the stream depends on it, or remove it from the answer's Vary in the source if it does not")
	default:
		for _, name := range restricted.vary {
			explain(passVary, name, "sharing an event stream only among clients with the same value of a header, as its answer says in Vary",
				"remove Vary in the source if the stream does not depend on the header")
		}
	}
}

// explainPrivate says once that an answer that is shared claims to be private.
// Frameworks send that on everything, so it means nothing by itself.
func (p *pool) explainPrivate(t *topic, header http.Header) {
	for directive := range listItems(header["Cache-Control"]) {
		name, _, _ := strings.Cut(directive, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "private") {
			continue
		}
		if p.hints.due(hintPrivate, "") {
			p.log().Info("sharing an event stream whose answer says that it is private",
				zap.String("topic", t.name),
				zap.String("header", "Cache-Control"),
				zap.String("hint", "many frameworks say so of everything; if the stream depends on its client, name what tells it in vary"))
		}
		return
	}
}

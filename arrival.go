package ssefanout

import (
	"errors"

	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/site"
)

// An arrival is a client that has come to a topic of the wrapping form, and what decides
// whether it may share it. For the endpoint form, it is the handler alone.
type arrival struct {
	handler *instance
	facts   request.Facts

	mayJoinAgain bool // should the topic turn out to be over
	sought       bool // it has waited for long, and the topic was made to look
}

// key is a topic's key for the clients that come through the same handler with the same
// facts.
func (a *arrival) key(of string) string {
	return a.handler.frontKey(a.facts.Key() + of)
}

// errOutdated is what a client gets to hear whose configuration has been replaced: it
// finds the new one.
var errOutdated = errors.New("coming through a configuration that has been replaced")

// Judge implements relay.Gate.
func (a *arrival) Judge(t *relay.Topic, late, unled bool) (why error, known bool) {
	u := upstreamOf(t)
	if late && !a.sought {
		a.sought = true
		u.seek(a.handler) // the new configuration's connection may have failed
	}
	outdated := !u.pool.lineage.isNewest(a.handler)
	switch j := u.homes.Judge(a.handler.place(), a.facts); {
	case j.Why == pass.Differs:
		u.pool.passing.Remember(a.key(t.Key()), pass.Differs, site.FrontMemory)
		u.pool.ExplainDiffers(t, j.Differs)
		return j.Why, true
	case j.Why != "":
		a.handler.frontFailed(u.pool, t, "the stranger is led to another handler")
		return j.Why, true
	case j.Known:
		return nil, true
	case j.Settled && outdated:
		return errOutdated, true
	case unled:
		a.handler.frontFailed(u.pool, t, "the site has not answered the stranger in time")
		return pass.Front, true
	}
	return nil, false
}

// Interface guards
var _ relay.Gate = (*arrival)(nil)

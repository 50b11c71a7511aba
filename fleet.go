package ssefanout

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A membership is a handler's part in the fleet of its nodes.
type membership struct {
	fleet      fleet.Fleet
	definition string // of its topics, the same on all nodes
}

// joinFleet finds the fleet that the handler takes part in, if it does.
func (h *Handler) joinFleet(ctx caddy.Context, definition string) error {
	if !h.settings.Fleet {
		return nil
	}
	if h.wraps() && h.settings.Name == "" {
		return errors.New("joining the fleet: what stands behind this handler does not tell which handler of another node " +
			"it is; give it the option name, with the same name on all nodes, or name upstreams behind sse_fanout")
	}
	value, err := ctx.AppIfConfigured(fleet.AppID)
	if err != nil {
		return fmt.Errorf("joining the fleet: %w; configure the global option %s, in a Caddy that is built with the package jetstream "+
			"(xcaddy build --with github.com/sse-fanout/caddy-sse-fanout/jetstream)", err, fleet.AppID)
	}
	app, ok := value.(fleet.App)
	if !ok {
		return fmt.Errorf("joining the fleet: the app %s is a %T, and no fleet", fleet.AppID, value)
	}
	if h.settings.Name != "" {
		definition = "name " + h.settings.Name
	}
	h.fleet = &membership{app.Fleet(), definition}
	return nil
}

// id tells fleets of this process apart: topics do not go on in another one.
func (m *membership) id() string {
	if m == nil {
		return ""
	}
	return fmt.Sprintf("%p", m.fleet)
}

// join makes the upstream of a topic part of the fleet.
func (m *membership) join(u *upstream) {
	if m == nil {
		return
	}
	u.shared = m.fleet.Source(fleet.Topic{
		Topic:        u.topic,
		Definition:   m.definition,
		AssignIDs:    u.pool.opts.IDs == "assign",
		MaxEventSize: u.pool.opts.MaxEventSize,
	}, asker{u})
}

// Part is what this node is for the topic in the fleet, or nil if the topic is in none.
func (u *upstream) Part() *fleet.Part {
	m, ok := u.shared.(fleet.Member)
	if !ok {
		return nil
	}
	return new(m.Part())
}

// An asker is an upstream as the fleet sees it: the origin.
type asker struct{ *upstream }

// Follow implements relay.Source.
func (a asker) Follow(ctx context.Context, from relay.Resumption, sink relay.Sink) relay.Outcome {
	return a.ask(ctx, from, sink)
}

package ssefanout

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// A followingApp is a fleet in which another node asks the origin.
type followingApp struct{}

// follows gets what the topics of a followingApp are followed with.
var follows = make(chan relay.Sink, 10)

func init() {
	caddy.RegisterModule(followingApp{})
	httpcaddyfile.RegisterGlobalOption(fleet.AppID, func(d *caddyfile.Dispenser, _ any) (any, error) {
		d.Next()
		return httpcaddyfile.App{Name: fleet.AppID, Value: []byte("{}")}, nil
	})
}

// CaddyModule implements caddy.Module.
func (followingApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: fleet.AppID, New: func() caddy.Module { return new(followingApp) }}
}

func (followingApp) Start() error       { return nil }
func (followingApp) Stop() error        { return nil }
func (followingApp) Fleet() fleet.Fleet { return followingApp{} }

func (followingApp) Source(_ fleet.Topic, origin relay.Source) relay.Source { return follower{origin} }

type follower struct{ relay.Source }

func (follower) Follow(ctx context.Context, _ relay.Resumption, sink relay.Sink) relay.Outcome {
	sink.Accept(relay.Opening{Header: map[string][]string{"Content-Type": {"text/event-stream"}}, News: true})
	follows <- sink
	<-ctx.Done()
	return relay.Outcome{Err: ctx.Err()}
}

// In the wrapping form, the site of each node decides who may share a topic, also while another
// node asks the origin.
func TestWrappingFormThatFollows(t *testing.T) {
	const directives = `
header X-Version a
@secret query secret=1
respond @secret 403
@strangers {
	path /members
	not header X-Member *
}
respond @strangers 401
sse_fanout {
	name events
	fleet
	heartbeat 15s
	wait 2s
}
`
	origin := newLiveOrigin(t)
	s := run(t, directives+"reverse_proxy "+origin.addr, fleet.AppID)
	followed := func() relay.Sink {
		t.Helper()
		select {
		case sink := <-follows:
			return sink
		case <-time.After(10 * time.Second):
			t.Fatal("the topic is not followed")
			return nil
		}
	}
	event := func(sink relay.Sink, id string) {
		sink.Event(&sse.Event{HasID: true, ID: []byte(id), HasData: true, Data: []byte("of the fleet")})
		sink.Decided(false)
		sink.Flush()
	}

	opened := make(chan *stream, 1)
	go func() { opened <- open(t, s.client, s.url+"/events") }()
	sink := followed()
	event(sink, "1")
	first := <-opened
	first.expectEvent("id: 1\ndata: of the fleet\n\n")
	second := open(t, s.client, s.url+"/events")
	event(sink, "2")
	for _, c := range []*stream{first, second} {
		c.expectEvent("id: 2\ndata: of the fleet\n\n")
	}

	// After a reload, a stranger passes the new site.
	s.load(strings.Replace(directives, "Version a", "Version b", 1) + "reverse_proxy " + origin.addr)
	third := open(t, s.client, s.url+"/events")
	sink = followed()
	event(sink, "3")
	for _, c := range []*stream{first, second, third} {
		c.expectEvent("id: 3\ndata: of the fleet\n\n")
	}
	if n := len(origin.asked()); n != 0 {
		t.Errorf("the origin was asked %d times", n)
	}

	// A client that is led where a stranger is not gets what the origin has for it alone.
	member := ask200(t, s.client, s.url+"/members", "X-Member", "yes")
	origin.send("data: of the origin\n\n")
	if got := member.next(); got != "data: of the origin\n" {
		t.Errorf("a member has got %q", got)
	}
	select {
	case <-follows:
		t.Error("the topic of members was followed, and strangers have none")
	default:
	}

	resp, err := s.client.Get(s.url + "/events?secret=1")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("got status %d", resp.StatusCode)
	}
}

package ssefanout

import (
	"fmt"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("sse_fanout", parseCaddyfile)

	// As late as possible, but in front of what answers with event streams:
	// reverse_proxy, php_fastcgi and file_server end Caddy's order, so that one
	// line beside them wraps them. What must see every single client comes
	// before: what rewrites its request, wraps its response, or turns it away,
	// which is not only basic_auth and forward_auth but abort and respond too.
	httpcaddyfile.RegisterDirectiveOrder("sse_fanout", httpcaddyfile.Before, "reverse_proxy")
}

func parseCaddyfile(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(Handler)
	if err := h.UnmarshalCaddyfile(helper.Dispenser); err != nil {
		return nil, err
	}
	if err := h.FinalizeUnmarshalCaddyfile(helper); err != nil {
		return nil, err
	}
	return h, nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	sse_fanout [<matcher>] [<upstreams...>] {
//	    source { <directives...> }
//
//	    # who shares what
//	    name         <text>
//	    vary         <header or placeholder...>
//	    ignore_query <name...>
//	    credentials  strip|pass
//	    ask_from     <ip>
//	    cors_origins <origin...>|*
//	    fleet        [on|off]
//
//	    # what clients get
//	    heartbeat   off|<duration> [event <name>]
//	    primer      auto|on|off
//	    history     <events> [<age> [<size>]]
//	    first_event newest|oldest|<n>
//	    greeting    <n>|<event name>
//	    retry       <duration>
//	    ids         origin|assign
//	    gap_event   <name>
//	    catchup     off|<connections> [<timeout>]
//
//	    # the connection to the origin
//	    linger         off|<duration> [<topics>]
//	    wait           <duration>
//	    unavailable    hold|reject
//	    reconnect      <min> <max>
//	    idle_timeout   off|<duration>
//	    on_end         reconnect|close
//	    max_event_size <size>
//
//	    # limits
//	    max_topics         <n> [per_client_ip <n>]
//	    max_subscribers    off|<n> [per_topic <n>] [per_client_ip <n>]
//	    stream_timeout     off|<duration>
//	    dispatch_timeout   <duration>
//	    direct             on|off
//	    compress           off|gzip [<level>] [from <subscribers>] [credentials]
//	    stream_close_delay <duration>
//
//	    # with upstreams
//	    <any reverse_proxy subdirective>
//	}
//
// With upstreams, be they arguments or named by reverse_proxy's "to" or
// "dynamic", every GET that the matcher lets through is shared, and a
// reverse_proxy answers it, whose own subdirectives can all stand in the block.
// "source" names any other directives instead, such as php_fastcgi, whose matchers
// see the shared request. Without either, the next handler of the route answers,
// and only what is certainly a public event stream is shared.
//
// The options are those of [Options], where their defaults are. Some are more
// than they seem:
//
// "vary" makes requests that differ in a header or a placeholder separate
// topics. It also lets the origin see that header, which it otherwise does not.
//
// "ignore_query" takes cache busters out of the URL, so that pages that add one share
// a topic.
//
// "credentials strip" shares requests that carry cookies or the like, without
// what they carry: who is allowed to see the stream must have been decided
// before. It is the default with upstreams only.
//
// "ask_from" is the address as whom the site is asked without upstreams, for sites
// that admit some addresses alone.
//
// "fleet" makes all nodes of the app sse_fanout_fleet open one connection to the origin
// together.
//
// "retry" is the reconnection time that clients are told; how soon the origin
// is asked again is "reconnect".
//
// "unavailable reject" answers 503 when the origin has not answered within
// "wait". A browser's EventSource gives up for good then.
//
// "linger off" or "linger 0" closes a topic with its last subscriber.
//
// "compress gzip" compresses each topic once for all of its clients that accept gzip. It is an
// error where "vary" names what may identify a client, unless "credentials" says that its events
// may be compressed.
//
// "stream_timeout" and "stream_close_delay" are reverse_proxy's, too. With
// upstreams, they also hold for upgraded connections, which pass one to one.
//
// The FinalizeUnmarshalCaddyfile method must be called after this, as only it
// can parse reverse_proxy's "handle_response" blocks.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive name

	// a copy: our options are deleted, and what is left is reverse_proxy's
	d = d.NewFromNextSegment()
	d.Next()
	upstreams := len(d.RemainingArgs()) > 0
	var notOurs error // about the first such subdirective, for when no reverse_proxy can take it
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		name := d.Val()
		if _, ours := settings.Grammar[name]; !ours {
			upstreams = upstreams || name == "to" || name == "dynamic"
			if notOurs == nil {
				notOurs = d.Errf("unrecognized subdirective %s: it is no option of sse_fanout; "+
					"if it is one of reverse_proxy, name upstreams, after sse_fanout or with 'to' or 'dynamic'", name)
			}
			d.NextSegment() // skip its arguments and its block, whose words are not for us
			continue
		}
		if seen[name] {
			return d.Errf("%s is already set: it can be given only once", name)
		}
		seen[name] = true
		if name == "source" {
			h.sourceSegment = d.NewFromNextSegment()
			continue
		}

		tokens := 1 + d.CountRemainingArgs()
		if err := settings.Unmarshal(&h.Options, d); err != nil {
			return err
		}
		if name != "stream_close_delay" && (name != "stream_timeout" || h.StreamTimeout == 0) {
			d.DeleteN(tokens)
		}
	}

	switch {
	case h.sourceSegment != nil && upstreams:
		return d.Err("upstreams and source are both given: a source is in place of upstreams")
	case !upstreams:
		return notOurs
	}
	d.Reset()
	rp := new(reverseproxy.Handler)
	if err := rp.UnmarshalCaddyfile(d); err != nil {
		// reverse_proxy does not know that the block is ours, too. What it says
		// of blocks within names a place where d is not.
		name := d.Val()
		if err.Error() == d.Errf("unrecognized subdirective %s", name).Error() {
			return d.Errf("unrecognized subdirective %s: it is an option neither of sse_fanout nor of reverse_proxy", name)
		}
		return err
	}
	h.source = rp
	return nil
}

// FinalizeUnmarshalCaddyfile finalizes the Caddyfile parsing which requires
// having an httpcaddyfile.Helper to function.
func (h *Handler) FinalizeUnmarshalCaddyfile(helper httpcaddyfile.Helper) error {
	if h.sourceSegment != nil {
		routes, err := httpcaddyfile.ParseSegmentAsSubroute(helper.WithDispenser(h.sourceSegment))
		if err != nil {
			return fmt.Errorf("parsing source: %w", err)
		}
		if subroute, ok := routes.(*caddyhttp.Subroute); !ok || len(subroute.Routes) == 0 {
			return h.sourceSegment.Err("parsing source: it has no directive that answers; expected: source " + settings.Grammar["source"].Syntax)
		}
		h.SourceRaw = caddyconfig.JSONModuleObject(routes, "handler", "subroute", nil)
		return nil
	}
	rp, ok := h.source.(*reverseproxy.Handler)
	if !ok {
		return nil
	}
	if err := rp.FinalizeUnmarshalCaddyfile(helper); err != nil {
		return err
	}
	h.SourceRaw = caddyconfig.JSONModuleObject(rp, "handler", "reverse_proxy", nil)
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Handler)(nil)

package ssefanout

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
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
//
//	    # what clients get
//	    heartbeat   off|<duration> [comment <text> | event <name>]
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
// "retry" is the reconnection time that clients are told; how soon the origin
// is asked again is "reconnect".
//
// "unavailable reject" answers 503 when the origin has not answered within
// "wait". A browser's EventSource gives up for good then.
//
// "linger off" or "linger 0" closes a topic with its last subscriber.
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
		if _, ours := usage[name]; !ours {
			upstreams = upstreams || name == "to" || name == "dynamic"
			if notOurs == nil {
				notOurs = d.Errf("unrecognized subdirective %s: it is no option of sse_fanout%s; "+
					"if it is one of reverse_proxy, name upstreams, after sse_fanout or with 'to' or 'dynamic'", name, isMeant(name))
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
		if err := h.Options.unmarshalOption(d); err != nil {
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
			return d.Errf("unrecognized subdirective %s: it is an option neither of sse_fanout nor of reverse_proxy%s", name, isMeant(name))
		}
		return err
	}
	h.source = rp
	return nil
}

// isMeant asks whether one of our options is meant by name, if one is spelt
// almost like it.
func isMeant(name string) string {
	for typos := 1; typos <= 2; typos++ {
		for _, option := range slices.Sorted(maps.Keys(usage)) {
			if almost(typos, name, option) {
				return fmt.Sprintf(" (is %s meant?)", option)
			}
		}
	}
	return ""
}

// almost reports whether a becomes b by at most n letters that are added, left
// out or replaced.
func almost(n int, a, b string) bool {
	for a != "" && b != "" && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	if a == "" || b == "" || n == 0 {
		return len(a)+len(b) <= n
	}
	return almost(n-1, a[1:], b) || almost(n-1, a, b[1:]) || almost(n-1, a[1:], b[1:])
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
			return h.sourceSegment.Err("parsing source: it has no directive that answers; expected: source " + usage["source"])
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

// usage says for each of our options what follows its name.
var usage = map[string]string{
	"name":               "<text>",
	"vary":               "<header or placeholder...>",
	"ignore_query":       "<name...>",
	"credentials":        "strip|pass",
	"ask_from":           "<ip>",
	"source":             "{ <directives...> }",
	"cors_origins":       "<origin...>|*",
	"heartbeat":          "off|<duration> [comment <text> | event <name>]",
	"primer":             "auto|on|off",
	"history":            "<events> [<age> [<size>]]",
	"first_event":        "newest|oldest|<n>",
	"greeting":           "<n>|<event name>",
	"retry":              "<duration>",
	"ids":                "origin|assign",
	"gap_event":          "<name>",
	"catchup":            "off|<connections> [<timeout>]",
	"linger":             "off|<duration> [<topics>]",
	"wait":               "<duration>",
	"unavailable":        "hold|reject",
	"reconnect":          "<min> <max>",
	"idle_timeout":       "off|<duration>",
	"on_end":             "reconnect|close",
	"max_event_size":     "<size>",
	"max_topics":         "<n> [per_client_ip <n>]",
	"max_subscribers":    "off|<n> [per_topic <n>] [per_client_ip <n>]",
	"stream_timeout":     "off|<duration>",
	"direct":             "on|off",
	"dispatch_timeout":   "<duration>",
	"stream_close_delay": "<duration>",
}

// unmarshalOption sets the option that d is at.
func (o *Options) unmarshalOption(d *caddyfile.Dispenser) error {
	name := d.Val()
	args := &arguments{d: d, option: name}
	o.parse(name, args)
	args.end()
	err := args.err
	if err == nil {
		// can only complain of this option, as those before it are valid
		err = o.validate()
	}
	if err != nil {
		return d.Errf("%w; expected: %s %s", err, name, usage[name])
	}
	return nil
}

func (o *Options) parse(name string, args *arguments) {
	switch name {
	case "name":
		o.Name = args.text()
	case "vary":
		o.Vary = args.texts()
	case "ignore_query":
		o.IgnoreQuery = args.texts()
	case "credentials":
		o.Credentials = args.text()
	case "ask_from":
		o.AskFrom = args.text()
	case "cors_origins":
		o.CORSOrigins = args.texts()
		if _, err := newCORSPolicy(o.CORSOrigins); err != nil && args.err == nil {
			args.err = err
		}
	case "heartbeat":
		if args.next("off") {
			o.Heartbeat.Interval = -1
			return
		}
		o.Heartbeat.Interval = args.duration()
		if args.next("comment") {
			o.Heartbeat.Comment = args.text()
		} else if args.next("event") {
			o.Heartbeat.Event = args.text()
		}
	case "primer":
		o.Primer = args.text()
	case "history":
		o.History.Events = args.number()
		if args.more() {
			o.History.Age = args.duration()
		}
		if args.more() {
			o.History.Size = args.size()
		}
	case "first_event":
		if args.next("newest") || args.next("oldest") {
			o.FirstEvent = args.d.Val()
		} else {
			o.FirstEvent = strconv.Itoa(args.number())
		}
	case "retry":
		o.Retry = args.duration()
	case "greeting":
		o.Greeting = args.text()
	case "ids":
		o.IDs = args.text()
	case "gap_event":
		o.GapEvent = args.text()
	case "catchup":
		if args.next("off") {
			o.Catchup.Connections = -1
			return
		}
		o.Catchup.Connections = args.number()
		if args.more() {
			o.Catchup.Timeout = args.duration()
		}
	case "linger":
		if args.next("off") || args.next("0") || args.next("0s") {
			o.Linger.Duration = -1
			return
		}
		o.Linger.Duration = args.duration()
		if args.more() {
			o.Linger.Topics = args.number()
		}
	case "wait":
		o.Wait = args.duration()
	case "direct":
		o.Direct = args.text()
	case "unavailable":
		o.Unavailable = args.text()
	case "reconnect":
		o.Reconnect.Min = args.duration()
		o.Reconnect.Max = args.duration()
	case "idle_timeout":
		o.IdleTimeout = args.limit()
	case "on_end":
		o.OnEnd = args.text()
	case "max_event_size":
		o.MaxEventSize = args.size()
	case "max_topics":
		o.MaxTopics.Total = args.number()
		if args.next("per_client_ip") {
			o.MaxTopics.PerClientIP = args.number()
		}
	case "max_subscribers":
		if !args.next("off") {
			o.MaxSubscribers.Total = args.number()
		}
		if args.next("per_topic") {
			o.MaxSubscribers.PerTopic = args.number()
		}
		if args.next("per_client_ip") {
			o.MaxSubscribers.PerClientIP = args.number()
		}
	case "stream_timeout":
		o.StreamTimeout = args.limit()
	case "dispatch_timeout":
		o.DispatchTimeout = args.duration()
	case "stream_close_delay":
		o.StreamCloseDelay = args.duration()
	}
}

// arguments are those of one option. Their methods go from one to the next and
// return what it says, until there is an error, which is the only one that err
// keeps. Zero and negative values are errors: in Options they stand for a
// default or for "off", and whoever writes them means something else.
type arguments struct {
	d      *caddyfile.Dispenser
	option string
	err    error
}

func (args *arguments) fail(format string, values ...any) {
	if args.err == nil {
		args.err = fmt.Errorf("parsing %s: %w", args.option, fmt.Errorf(format, values...))
	}
}

// end fails if anything is left, a block included.
func (args *arguments) end() {
	if args.d.NextLine() {
		args.d.Prev()
	} else if args.err == nil {
		args.d.Next()
		args.fail("unexpected %q", args.d.Val())
	}
}

// more reports whether there is another argument.
func (args *arguments) more() bool {
	return args.err == nil && args.d.CountRemainingArgs() > 0
}

// next consumes the next argument if it is word, and reports whether it was.
func (args *arguments) next(word string) bool {
	if !args.more() {
		return false
	}
	args.d.NextArg()
	if args.d.Val() == word {
		return true
	}
	args.d.Prev()
	return false
}

func (args *arguments) text() string {
	if args.more() && args.d.NextArg() && args.d.Val() != "" {
		return args.d.Val()
	}
	args.fail("missing or empty argument")
	return ""
}

func (args *arguments) texts() []string {
	if !args.more() {
		args.fail("missing argument")
	}
	return args.d.RemainingArgs()
}

func (args *arguments) number() int {
	return positive(args, "number", strconv.Atoi)
}

func (args *arguments) duration() caddy.Duration {
	return caddy.Duration(positive(args, "duration, such as 10s", caddy.ParseDuration))
}

// limit is a duration, or 0 for "off".
func (args *arguments) limit() caddy.Duration {
	if args.next("off") {
		return 0
	}
	return args.duration()
}

func (args *arguments) size() int64 {
	return positive(args, "size, such as 4MiB", func(text string) (int64, error) {
		size, err := humanize.ParseBytes(text)
		return int64(size), err // what is too large becomes negative
	})
}

// positive returns the next argument as parse understands it.
func positive[T ~int | ~int64](args *arguments, kind string, parse func(string) (T, error)) T {
	text := args.text()
	value, err := parse(text)
	if err != nil || value <= 0 {
		args.fail("%q is not a positive %s", text, kind)
	}
	return value
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Handler)(nil)

package settings

import (
	"errors"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/sse-fanout/caddy-sse-fanout/internal/arguments"
	"github.com/sse-fanout/caddy-sse-fanout/internal/cors"
)

// An Option is a subdirective of sse_fanout, beside those of reverse_proxy.
type Option struct {
	// Syntax is what follows its name.
	Syntax string

	parse func(*Options, *arguments.Arguments)
}

// Grammar has all of our options.
var Grammar = map[string]Option{
	// who shares what
	"name":         {"<text>", func(o *Options, args *arguments.Arguments) { o.Name = args.Text() }},
	"vary":         {"<header or placeholder...>", func(o *Options, args *arguments.Arguments) { o.Vary = args.Texts() }},
	"ignore_query": {"<name...>", func(o *Options, args *arguments.Arguments) { o.IgnoreQuery = args.Texts() }},
	"credentials":  {"strip|pass", func(o *Options, args *arguments.Arguments) { o.Credentials = args.Text() }},
	"ask_from":     {"<ip>", func(o *Options, args *arguments.Arguments) { o.AskFrom = args.Text() }},
	// UnmarshalCaddyfile takes its block. What the flag --source names is left over,
	// which is an error.
	"fleet": {"[on|off]", func(o *Options, args *arguments.Arguments) {
		switch {
		case args.Next("off"):
			o.Fleet = false
		case args.Next("on") || !args.More():
			o.Fleet = true
		default:
			args.Fail("%q is not one of on, off", args.Text())
		}
	}},
	"source": {"{ <directives...> }", func(*Options, *arguments.Arguments) {}},
	"cors_origins": {"<origin...>|*", func(o *Options, args *arguments.Arguments) {
		o.CORSOrigins = args.Texts()
		if _, err := cors.New(o.CORSOrigins); err != nil && args.Err == nil {
			args.Err = err
		}
	}},

	// what clients get
	"heartbeat": {"off|<duration> [event <name>]", func(o *Options, args *arguments.Arguments) {
		if args.Next("off") {
			o.Heartbeat.Interval = -1
			return
		}
		o.Heartbeat.Interval = args.Duration()
		if args.Next("event") {
			o.Heartbeat.Event = args.Text()
		}
	}},
	"primer": {"auto|on|off", func(o *Options, args *arguments.Arguments) { o.Primer = args.Text() }},
	"history": {"<events> [<age> [<size>]]", func(o *Options, args *arguments.Arguments) {
		o.History.Events = args.Number()
		if args.More() {
			o.History.Age = args.Duration()
		}
		if args.More() {
			o.History.Size = args.Size()
		}
	}},
	"first_event": {"newest|oldest|<n>", func(o *Options, args *arguments.Arguments) {
		switch {
		case args.Next("newest"):
			o.FirstEvent = "newest"
		case args.Next("oldest"):
			o.FirstEvent = "oldest"
		default:
			o.FirstEvent = strconv.Itoa(args.Number())
		}
	}},
	"greeting":  {"<n>|<event name>", func(o *Options, args *arguments.Arguments) { o.Greeting = args.Text() }},
	"retry":     {"<duration>", func(o *Options, args *arguments.Arguments) { o.Retry = args.Duration() }},
	"ids":       {"origin|assign", func(o *Options, args *arguments.Arguments) { o.IDs = args.Text() }},
	"gap_event": {"<name>", func(o *Options, args *arguments.Arguments) { o.GapEvent = args.Text() }},
	"catchup": {"off|<connections> [<timeout>]", func(o *Options, args *arguments.Arguments) {
		if args.Next("off") {
			o.Catchup.Connections = -1
			return
		}
		o.Catchup.Connections = args.Number()
		if args.More() {
			o.Catchup.Timeout = args.Duration()
		}
	}},

	// the connection to the origin
	"linger": {"off|<duration> [<topics>]", func(o *Options, args *arguments.Arguments) {
		if args.Next("off") || args.Next("0") || args.Next("0s") {
			o.Linger.Duration = -1
			return
		}
		o.Linger.Duration = args.Duration()
		if args.More() {
			o.Linger.Topics = args.Number()
		}
	}},
	"wait":        {"<duration>", func(o *Options, args *arguments.Arguments) { o.Wait = args.Duration() }},
	"unavailable": {"hold|reject", func(o *Options, args *arguments.Arguments) { o.Unavailable = args.Text() }},
	"reconnect": {"<min> <max>", func(o *Options, args *arguments.Arguments) {
		o.Reconnect.Min = args.Duration()
		o.Reconnect.Max = args.Duration()
	}},
	"idle_timeout":   {"off|<duration>", func(o *Options, args *arguments.Arguments) { o.IdleTimeout = args.Limit() }},
	"on_end":         {"reconnect|close", func(o *Options, args *arguments.Arguments) { o.OnEnd = args.Text() }},
	"max_event_size": {"<size>", func(o *Options, args *arguments.Arguments) { o.MaxEventSize = args.Size() }},

	// limits
	"max_topics": {"<n> [per_client_ip <n>]", func(o *Options, args *arguments.Arguments) {
		o.MaxTopics.Total = args.Number()
		if args.Next("per_client_ip") {
			o.MaxTopics.PerClientIP = args.Number()
		}
	}},
	"max_subscribers": {"off|<n> [per_topic <n>] [per_client_ip <n>]", func(o *Options, args *arguments.Arguments) {
		if !args.Next("off") {
			o.MaxSubscribers.Total = args.Number()
		}
		if args.Next("per_topic") {
			o.MaxSubscribers.PerTopic = args.Number()
		}
		if args.Next("per_client_ip") {
			o.MaxSubscribers.PerClientIP = args.Number()
		}
	}},
	"stream_timeout": {"off|<duration>", func(o *Options, args *arguments.Arguments) { o.StreamTimeout = args.Limit() }},
	"direct":         {"on|off", func(o *Options, args *arguments.Arguments) { o.Direct = args.Text() }},
	"compress": {"off|gzip [<level>] [from <subscribers>] [credentials]", func(o *Options, args *arguments.Arguments) {
		o.Compress.Encoding = args.Text()
		if o.Compress.Encoding == "off" {
			return
		}
		if next := args.Peek(); next != "" && next != "from" && next != "credentials" {
			o.Compress.Level = args.Number()
		}
		if args.Next("from") {
			o.Compress.From = args.Number()
		}
		o.Compress.WithCredentials = args.Next("credentials")
	}},
	"dispatch_timeout":   {"<duration>", func(o *Options, args *arguments.Arguments) { o.DispatchTimeout = args.Duration() }},
	"stream_close_delay": {"<duration>", func(o *Options, args *arguments.Arguments) { o.StreamCloseDelay = args.Duration() }},
}

// Unmarshal sets the option that d is at.
func Unmarshal(o *Options, d *caddyfile.Dispenser) error {
	name := d.Val()
	args := arguments.New(d, name)
	Grammar[name].parse(o, args)
	args.End()
	err := args.Err
	if err == nil {
		// can only complain of this option, as those before it are valid
		err = o.Validate()
	}
	if err != nil {
		return d.Errf("%w; expected: %s %s", err, name, Grammar[name].Syntax)
	}
	return nil
}

// Set sets an option to what could stand behind its name in a Caddyfile.
func Set(o *Options, option, value string) error {
	if strings.ContainsAny(value, "\r\n") {
		return errors.New("it must be a single line")
	}
	// The line after it is where its arguments end.
	tokens, err := caddyfile.Tokenize([]byte(option+" "+value+"\n}"), "")
	if err != nil {
		return err
	}
	d := caddyfile.NewDispenser(tokens)
	d.Next()
	args := arguments.New(d, option)
	Grammar[option].parse(o, args)
	args.End()
	if args.Err != nil {
		return args.Err
	}
	return o.Validate()
}

package jetstream

import (
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/sse-fanout/caddy-sse-fanout/internal/arguments"
	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
)

func init() {
	httpcaddyfile.RegisterGlobalOption(fleet.AppID, parseGlobalOption)
}

// parseGlobalOption makes the app of the global option.
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		return nil, d.Errf("%s is already set: it can be given only once", fleet.AppID)
	}
	a := new(App)
	if err := a.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: fleet.AppID, Value: caddyconfig.JSON(a, nil)}, nil
}

// An option is one in the block of sse_fanout_fleet.
type option struct {
	syntax string
	parse  func(*App, *arguments.Arguments)
}

var grammar = map[string]option{
	"node":        {"<name>", func(a *App, args *arguments.Arguments) { a.Node = args.Text() }},
	"stream":      {"<name>", func(a *App, args *arguments.Arguments) { a.Stream = args.Text() }},
	"replicas":    {"<n>", func(a *App, args *arguments.Arguments) { a.Replicas = args.Number() }},
	"storage":     {"file|memory", func(a *App, args *arguments.Arguments) { a.Storage = args.Text() }},
	"credentials": {"<file>", func(a *App, args *arguments.Arguments) { a.Credentials = args.Text() }},
	"nkey":        {"<file>", func(a *App, args *arguments.Arguments) { a.NKey = args.Text() }},
	"tls_ca":      {"<file...>", func(a *App, args *arguments.Arguments) { a.TLS.CA = args.Texts() }},
	"tls_client": {"<certificate file> <key file>", func(a *App, args *arguments.Arguments) {
		a.TLS.Certificate = args.Text()
		a.TLS.Key = args.Text()
	}},
	"secret": {"<text>", func(a *App, args *arguments.Arguments) { a.Secret = args.Text() }},
	"lease":  {"<duration>", func(a *App, args *arguments.Arguments) { a.Lease = args.Duration() }},
	"history": {"<events> [<age> [<size>]]", func(a *App, args *arguments.Arguments) {
		a.History.Events = int64(args.Number())
		if args.More() {
			a.History.Age = args.Duration()
		}
		if args.More() {
			a.History.Size = args.Size()
		}
	}},
}

// UnmarshalCaddyfile sets up the app from Caddyfile tokens. Syntax:
//
//	sse_fanout_fleet <servers...> {
//	    node        <name>
//	    stream      <name>
//	    replicas    <n>
//	    storage     file|memory
//	    history     <events> [<age> [<size>]]
//	    credentials <file>
//	    nkey        <file>
//	    tls_ca      <file...>
//	    tls_client  <certificate file> <key file>
//	    secret      <text>
//	    lease       <duration>
//	}
//
// The options are those of [App], where their defaults are.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the name of the option
	a.Servers = d.RemainingArgs()
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		name := d.Val()
		o, ok := grammar[name]
		if !ok {
			return d.Errf("unrecognized option %s of %s", name, fleet.AppID)
		}
		if seen[name] {
			return d.Errf("%s is already set: it can be given only once", name)
		}
		seen[name] = true
		args := arguments.New(d, name)
		o.parse(a, args)
		args.End()
		if args.Err != nil {
			return d.Errf("%w; expected: %s %s", args.Err, name, o.syntax)
		}
	}
	if a.Secret == "" {
		return d.Errf("%s has no secret; expected: secret %s, the same on all nodes", fleet.AppID, grammar["secret"].syntax)
	}
	secret := a.Secret
	if strings.Contains(secret, "{") {
		secret = strings.Repeat("-", shortestSecret) // it is known when the configuration is loaded
	}
	if err := a.check(secret); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*App)(nil)

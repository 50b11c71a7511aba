package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// Fanout is a server that shares the event streams of others.
var Fanout = caddycmd.Command{
	Name:  "sse-fanout",
	Usage: `[--from <addr>] --to <addr> [--heartbeat "15s"] [--history "1000 5m 4MiB"] [--change-host-header] [--insecure] [--internal-certs] [--disable-redirects] [--header-up "Field: value"] [--header-down "Field: value"] [--access-log] [--debug] [...]`,
	Short: "Shares one connection to each event stream among all clients",
	Long: `
Answers at the --from address with the event streams of the --to address, and
holds one connection for each stream, however many clients listen. Restarts of
the server behind it are invisible to them.

Every GET is shared: all clients of a URL get the same events, and cookies and
credentials of a client do not reach the server, unless --vary names them, as in
--vary Cookie. Everything else is passed on untouched.

Multiple --to addresses may be specified by repeating the flag. Unless otherwise
specified in the addresses, the --from address will be assumed to be HTTPS if a
hostname is given, and the --to address will be assumed to be HTTP.

Each option of the sse_fanout directive is a flag with dashes for underscores,
and takes what it takes in the Caddyfile, as one word of the shell:

	$ caddy sse-fanout --from :8080 --to localhost:9000 \
	      --history "5000 10m" --heartbeat "10s event ping" --cors-origins "*"

If serving HTTPS:
  --disable-redirects can be used to avoid binding to the HTTP port.
  --internal-certs can be used to force issuance certs using the internal
    CA instead of attempting to issue a public certificate.

For proxying:
  --header-up can be used to set a request header to send to the upstream.
  --header-down can be used to set a response header to send back to the client.
  --change-host-header sets the Host header on the request to the address
    of the upstream, instead of defaulting to the incoming Host header.
  --insecure disables TLS verification with the upstream. WARNING: THIS
    DISABLES SECURITY BY NOT VERIFYING THE UPSTREAM'S CERTIFICATE.
`,
	CobraFunc: func(cmd *cobra.Command) {
		cmd.Args = cobra.NoArgs
		cmd.Flags().StringP("from", "f", "localhost", "Address on which to receive traffic")
		cmd.Flags().StringSliceP("to", "t", []string{}, "Upstream address(es) from which to get the streams")
		cmd.Flags().BoolP("change-host-header", "c", false, "Set upstream Host header to address of upstream")
		cmd.Flags().BoolP("insecure", "", false, "Disable TLS verification (WARNING: DISABLES SECURITY BY NOT VERIFYING TLS CERTIFICATES!)")
		cmd.Flags().BoolP("disable-redirects", "r", false, "Disable HTTP->HTTPS redirects")
		cmd.Flags().BoolP("internal-certs", "i", false, "Use internal CA for issuing certs")
		cmd.Flags().StringArrayP("header-up", "H", []string{}, "Set a request header to send to the upstream (format: \"Field: value\")")
		cmd.Flags().StringArrayP("header-down", "d", []string{}, "Set a response header to send back to the client (format: \"Field: value\")")
		cmd.Flags().BoolP("access-log", "", false, "Enable the access log")
		cmd.Flags().BoolP("debug", "v", false, "Enable verbose debug logs")
		for name, option := range settings.Grammar {
			cmd.Flags().StringArrayP(flagOf(name), "", []string{}, "Caddyfile `option`: "+option.Syntax)
		}
		cmd.RunE = caddycmd.WrapCommandFuncForCobra(cmdFanout)
	},
}

// flagOf returns the name of the flag that sets an option.
func flagOf(option string) string {
	return strings.ReplaceAll(option, "_", "-")
}

func cmdFanout(fs caddycmd.Flags) (int, error) {
	caddy.TrapSignals()

	cfg, err := fanoutConfig(fs)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if err := caddy.Run(cfg); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	to, _ := fs.GetStringSlice("to")
	caddy.Log().Info("caddy sharing event streams", zap.String("from", fs.String("from")), zap.Strings("to", to))

	select {}
}

// fanoutConfig builds the configuration that the flags of sse-fanout ask for.
func fanoutConfig(fs caddycmd.Flags) (*caddy.Config, error) {
	addr, err := fanoutAddress(fs.String("from"))
	if err != nil {
		return nil, err
	}
	h, err := fanoutHandler(fs)
	if err != nil {
		return nil, err
	}
	server := fanoutServer(fs, addr, h)

	cfg := &caddy.Config{
		Admin: &caddy.AdminConfig{
			Disabled: true,
			Config:   &caddy.ConfigSettings{Persist: new(false)},
		},
		AppsRaw: caddy.ModuleMap{
			"http": caddyconfig.JSON(caddyhttp.App{Servers: map[string]*caddyhttp.Server{"fanout": server}}, nil),
		},
	}
	if fs.Bool("internal-certs") && addr.Host != "" {
		cfg.AppsRaw["tls"] = caddyconfig.JSON(caddytls.TLS{
			Automation: &caddytls.AutomationConfig{
				Policies: []*caddytls.AutomationPolicy{{
					SubjectsRaw: []string{addr.Host},
					IssuersRaw:  []json.RawMessage{json.RawMessage(`{"module":"internal"}`)},
				}},
			},
		}, nil)
	}
	if fs.Bool("debug") {
		cfg.Logging = &caddy.Logging{
			Logs: map[string]*caddy.CustomLog{
				"default": {BaseLog: caddy.BaseLog{Level: zap.DebugLevel.CapitalString()}},
			},
		}
	}
	return cfg, nil
}

// fanoutAddress parses the address to answer at, and completes it.
func fanoutAddress(from string) (httpcaddyfile.Address, error) {
	addr, err := httpcaddyfile.ParseAddress(from)
	if err != nil {
		return httpcaddyfile.Address{}, fmt.Errorf("invalid downstream address %s: %w", from, err)
	}
	if addr.Path != "" {
		return httpcaddyfile.Address{}, fmt.Errorf("paths are not allowed: %s", from)
	}
	httpPort, httpsPort := strconv.Itoa(caddyhttp.DefaultHTTPPort), strconv.Itoa(caddyhttp.DefaultHTTPSPort)
	if addr.Scheme == "" {
		addr.Scheme = "https"
		if addr.Port == httpPort || addr.Host == "" {
			addr.Scheme = "http"
		}
	}
	if addr.Port == "" {
		addr.Port = httpsPort
		if addr.Scheme == "http" {
			addr.Port = httpPort
		}
	}
	if _, err := strconv.ParseUint(addr.Port, 10, 16); err != nil || strings.Contains(addr.Host, ":") && net.ParseIP(addr.Host) == nil {
		return httpcaddyfile.Address{}, fmt.Errorf("invalid downstream address %s: expected [<scheme>://][<host>][:<port>]", from)
	}
	return addr, nil
}

// A handler is an sse_fanout in JSON.
type handler struct {
	settings.Options
	Source json.RawMessage `json:"source"`
}

// fanoutHandler builds the handler, with the options that are given as flags.
func fanoutHandler(fs caddycmd.Flags) (*handler, error) {
	proxy, err := fanoutProxy(fs)
	if err != nil {
		return nil, err
	}
	h := &handler{Source: caddyconfig.JSONModuleObject(proxy, "handler", "reverse_proxy", nil)}
	for _, option := range slices.Sorted(maps.Keys(settings.Grammar)) {
		values, err := fs.GetStringArray(flagOf(option))
		if err != nil {
			return nil, err
		}
		if !fs.Changed(flagOf(option)) {
			continue
		}
		if err := settings.Set(&h.Options, option, strings.Join(values, " ")); err != nil {
			return nil, fmt.Errorf("invalid --%s: %w; expected: %s", flagOf(option), err, settings.Grammar[option].Syntax)
		}
	}
	return h, nil
}

// fanoutServer builds the server that has nothing but the handler.
func fanoutServer(fs caddycmd.Flags, addr httpcaddyfile.Address, h *handler) *caddyhttp.Server {
	route := caddyhttp.Route{
		HandlersRaw: []json.RawMessage{caddyconfig.JSONModuleObject(h, "handler", "sse_fanout", nil)},
	}
	if addr.Host != "" {
		route.MatcherSetsRaw = []caddy.ModuleMap{{"host": caddyconfig.JSON(caddyhttp.MatchHost{addr.Host}, nil)}}
	}
	server := &caddyhttp.Server{
		Routes: caddyhttp.RouteList{route},
		Listen: []string{":" + addr.Port},
	}
	if fs.Bool("access-log") {
		server.Logs = &caddyhttp.ServerLogConfig{}
	}
	if addr.Scheme == "http" {
		server.AutoHTTPS = &caddyhttp.AutoHTTPSConfig{Disabled: true}
	} else if fs.Bool("disable-redirects") {
		server.AutoHTTPS = &caddyhttp.AutoHTTPSConfig{DisableRedir: true}
	}
	return server
}

// fanoutProxy builds the reverse proxy that answers. Its own Caddyfile parser
// reads the addresses, so that they can be whatever they can be there.
func fanoutProxy(fs caddycmd.Flags) (*reverseproxy.Handler, error) {
	to, err := fs.GetStringSlice("to")
	if err != nil {
		return nil, fmt.Errorf("invalid to flag: %w", err)
	}
	if len(to) == 0 {
		return nil, errors.New("--to is required")
	}
	tokens := []caddyfile.Token{{Line: 1, Text: "reverse_proxy"}}
	var secure bool
	for _, address := range to {
		if address == "" || strings.ContainsAny(address, " \t\r\n{}") {
			return nil, fmt.Errorf("invalid upstream address %q", address)
		}
		secure = secure || strings.HasPrefix(address, "https://")
		tokens = append(tokens, caddyfile.Token{Line: 1, Text: address})
	}
	if fs.Bool("insecure") {
		if !secure {
			return nil, errors.New("--insecure needs an upstream address that begins with https://")
		}
		for i, line := range [...]string{"{", "transport http {", "tls_insecure_skip_verify", "}", "}"} {
			for word := range strings.FieldsSeq(line) {
				tokens = append(tokens, caddyfile.Token{Line: 1 + i, Text: word})
			}
		}
	}
	proxy := new(reverseproxy.Handler)
	if err := proxy.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
		// Without the place in a file that there is not.
		text, _, _ := strings.Cut(err.Error(), ", at ")
		return nil, fmt.Errorf("invalid upstream address %s: %s", strings.Join(to, ", "), text)
	}

	up, err := headerFlag(fs, "header-up")
	if err != nil {
		return nil, err
	}
	if fs.Bool("change-host-header") {
		up.Set("Host", "{http.reverse_proxy.upstream.hostport}")
	}
	down, err := headerFlag(fs, "header-down")
	if err != nil {
		return nil, err
	}
	if len(up) > 0 || len(down) > 0 {
		proxy.Headers = new(headers.Handler)
	}
	if len(up) > 0 {
		proxy.Headers.Request = &headers.HeaderOps{Set: up}
	}
	if len(down) > 0 {
		proxy.Headers.Response = &headers.RespHeaderOps{HeaderOps: &headers.HeaderOps{Set: down}}
	}
	return proxy, nil
}

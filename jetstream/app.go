package jetstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
)

func init() {
	caddy.RegisterModule(&App{})
}

// App makes this Caddy one of the nodes of a fleet, which opens one connection to the origin
// for each topic, on NATS JetStream. Handlers of sse_fanout take part with "fleet".
//
// It needs NATS servers of version 2.11 or newer with JetStream. All nodes of a fleet need
// the same stream, secret and lease. When there is no way to NATS, each node asks the origin
// itself, until there is one again.
type App struct {
	// The URLs of NATS servers, as in nats://10.0.0.5:4222. One of a cluster is enough to
	// begin with: the servers tell of the others. "tls://" requires TLS.
	Servers []string `json:"servers,omitempty"`

	// What this node is called in the log, in the admin API and by the others. Default is
	// the name of the host.
	Node string `json:"node,omitempty"`

	// The name of the stream, which is made if it is missing, and of the bucket of the
	// leases, with "_LEASES" behind it. Default is SSE_FANOUT.
	Stream string `json:"stream,omitempty"`

	// How many servers keep the stream: 1, 3 or 5. It is for a stream that is made. Default
	// is 1: then the fleet is as available as that server.
	Replicas int `json:"replicas,omitempty"`

	// Where the servers keep the stream: "file" or "memory". It is for a stream that is
	// made. Default is file.
	Storage string `json:"storage,omitempty"`

	// How many messages of each topic the stream keeps, at least 1024, for how long, and how
	// many bytes of all topics. It is for a stream that is made. Defaults are 2048 messages,
	// 10 minutes, and as many bytes as the account may have.
	History History `json:"history,omitzero"`

	// A file with the JWT and the key of a user (.creds).
	Credentials string `json:"credentials,omitempty"`

	// A file with the seed of an NKey.
	NKey string `json:"nkey,omitempty"`

	// TLS towards the servers.
	TLS TLS `json:"tls,omitzero"`

	// What all nodes know and nobody else: with it, the names of topics in the stream are
	// made. At least 16 bytes. It may have placeholders, as in {env.FLEET_SECRET}. Required.
	Secret string `json:"secret,omitempty"`

	// How long a node may be silent before another takes its place with the origin, at
	// least 1s. Shorter leases cost requests: each topic needs three in a lease. Default is 5s.
	Lease caddy.Duration `json:"lease,omitempty"`

	key    string // in members
	member *Fleet
	logger *zap.Logger
}

// History bounds what the stream keeps.
type History struct {
	Events int64          `json:"events,omitempty"`
	Age    caddy.Duration `json:"age,omitempty"`
	Size   int64          `json:"size,omitempty"`
}

// TLS is how servers are authenticated, and how this node is.
type TLS struct {
	// Files with the certificates that sign the servers'. Default is those that the system
	// trusts.
	CA []string `json:"ca,omitempty"`

	// Files with the certificate and the key of this node. Default is none.
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`
}

// Defaults.
const (
	defaultStream = "SSE_FANOUT"
	defaultLease  = 5 * time.Second
	defaultAge    = 10 * time.Minute
	defaultEvents = 2048

	fewestEvents   = 2 * maxUnacknowledged // a message must not be dropped before readers know that it was stored
	shortestLease  = time.Second
	shortestSecret = 16
)

// members has the fleets of this process by their settings, so that topics go on over a
// reload that leaves these as they are.
var members = caddy.NewUsagePool()

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: fleet.AppID, New: func() caddy.Module { return new(App) }}
}

// Provision connects to the servers, in the background.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	secret, err := caddy.NewReplacer().ReplaceOrErr(a.Secret, true, true)
	if err != nil {
		return fmt.Errorf("reading secret: %w", err)
	}
	if err := a.check(secret); err != nil {
		return err
	}
	config, err := json.Marshal(a) //nolint:gosec // it is a key in this process, and goes nowhere
	if err != nil {
		return fmt.Errorf("encoding configuration: %w", err)
	}
	key := string(config) + "\n" + secret
	value, _, err := members.LoadOrNew(key, func() (caddy.Destructor, error) { return a.join(secret) })
	if err != nil {
		return err
	}
	a.key, a.member = key, value.(*membership).fleet
	return registerMetrics(ctx.GetMetricsRegistry())
}

// check reports settings that are out of their range.
func (a *App) check(secret string) error {
	switch {
	case len(a.Servers) == 0:
		return errors.New("checking servers: name at least one NATS server, as in nats://10.0.0.5:4222")
	case len(secret) < shortestSecret:
		return fmt.Errorf("checking secret: it has %d bytes, and needs %d at least; make one with: openssl rand -base64 32", len(secret), shortestSecret)
	case a.Stream != "" && !isStreamName(a.Stream):
		return fmt.Errorf("checking stream: %q may have letters, digits, - and _ only", a.Stream)
	case a.Replicas < 0 || a.Replicas > 5:
		return fmt.Errorf("checking replicas: %d is not from 1 to 5", a.Replicas)
	case a.Storage != "" && a.Storage != "file" && a.Storage != "memory":
		return fmt.Errorf("checking storage: %q is not file or memory", a.Storage)
	case a.Lease != 0 && time.Duration(a.Lease) < shortestLease:
		return fmt.Errorf("checking lease: %s is shorter than %s", time.Duration(a.Lease), shortestLease)
	case a.History.Events > 0 && a.History.Events < fewestEvents:
		return fmt.Errorf("checking history: %d events are fewer than %d, and that many may be on their way at once", a.History.Events, fewestEvents)
	case a.History.Events < 0 || a.History.Age < 0 || a.History.Size < 0:
		return errors.New("checking history: must be positive")
	case a.Credentials != "" && a.NKey != "":
		return errors.New("checking credentials: nkey is given as well, and a node has one of the two")
	case (a.TLS.Certificate == "") != (a.TLS.Key == ""):
		return errors.New("checking tls: a certificate needs its key, and a key its certificate")
	}
	return nil
}

func (a *App) settings() Settings {
	s := Settings{
		Stream: a.Stream, Replicas: a.Replicas, Memory: a.Storage == "memory", Lease: time.Duration(a.Lease),
		HistoryEvents: a.History.Events, HistoryAge: time.Duration(a.History.Age), MaxBytes: a.History.Size,
	}
	if s.Stream == "" {
		s.Stream = defaultStream
	}
	if s.Replicas == 0 {
		s.Replicas = 1
	}
	if s.Lease == 0 {
		s.Lease = defaultLease
	}
	if s.HistoryEvents == 0 {
		s.HistoryEvents = defaultEvents
	}
	if s.HistoryAge == 0 {
		s.HistoryAge = defaultAge
	}
	return s
}

// A membership is a fleet and its connection.
type membership struct {
	fleet *Fleet
	conn  *nats.Conn
}

// Destruct leaves the fleet.
func (m *membership) Destruct() error {
	m.fleet.Close()
	m.conn.Close()
	return nil
}

// join begins to connect. It waits for one attempt with each server, two seconds at most: a
// site must start without NATS, too.
func (a *App) join(secret string) (*membership, error) {
	node := a.Node
	if node == "" {
		var err error
		if node, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("naming this node: %w; name it with node", err)
		}
	}
	options, err := a.natsOptions(node)
	if err != nil {
		return nil, err
	}
	conn, err := nats.Connect(strings.Join(a.Servers, ","), options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	f, err := New(conn, node, []byte(secret), a.settings(), a.logger)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &membership{f, conn}, nil
}

// Start implements caddy.App.
func (a *App) Start() error { return nil }

// Stop implements caddy.App. The fleet goes on for as long as a configuration has it.
func (a *App) Stop() error { return nil }

// Cleanup lets go of the fleet. If no newer configuration has it, its leases are given up.
func (a *App) Cleanup() error {
	if a.member == nil {
		return nil
	}
	_, err := members.Delete(a.key)
	return err
}

// Fleet implements fleet.App.
func (a *App) Fleet() fleet.Fleet { return a.member }

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
	_ fleet.App          = (*App)(nil)
)

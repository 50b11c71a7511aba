package settings

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/audience"
	"github.com/sse-fanout/caddy-sse-fanout/internal/cors"
	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// DefaultStranger is an address that is nobody's (RFC 5737). Whatever judges by
// address, in the site or in the origin, judges a shared request a stranger.
const DefaultStranger = "192.0.2.1"

const (
	DefaultHeartbeat        = 15 * time.Second
	DefaultHistoryEvents    = 1000
	DefaultHistoryAge       = 5 * time.Minute
	DefaultHistorySize      = 4 << 20
	DefaultCatchups         = 2
	DefaultCatchupTimeout   = 10 * time.Second
	DefaultLinger           = 10 * time.Second
	DefaultLingerTopics     = 100
	DefaultWait             = 10 * time.Second
	DefaultReconnectMin     = 500 * time.Millisecond
	DefaultReconnectMax     = 30 * time.Second
	DefaultMaxEventSize     = 16 << 20
	DefaultMaxTopics        = 10000
	DefaultDispatchTimeout  = 10 * time.Second
	DefaultStreamCloseDelay = 10 * time.Second
	DefaultBacklogBytes     = 64 << 20
	DefaultCompressFrom     = 2
)

// MaxCompressors is how many compressors a process has at once: some 128 MiB.
const MaxCompressors = 128

// Settings are options with their defaults, and what is derived from them. Nothing changes
// them once they are made.
type Settings struct {
	Options

	Wrapping     bool
	ByOriginal   bool   // endpoint form: the source may answer by the URL from before all rewrites
	Stranger     string // address that shared requests come from, with a port
	Strip        bool
	Reject       bool
	FirstEvents  int // how many events a fresh subscriber begins with; relay.AllEvents for "oldest"
	BacklogBytes int // of unread catch-ups, all together

	VaryHeaders      []string
	VaryPlaceholders []string
	CORS             cors.Policy
	Words            [audience.Count]relay.Words
}

// New returns the settings that follow from options, in the wrapping form or the
// endpoint form.
func New(o Options, wrapping bool) (*Settings, error) {
	o.setDefaults()
	s := &Settings{
		Options:      o,
		Wrapping:     wrapping,
		Stranger:     net.JoinHostPort(cmp.Or(o.AskFrom, DefaultStranger), "1"),
		Strip:        o.Credentials == "strip" || o.Credentials == "" && !wrapping,
		Reject:       o.Unavailable == "reject",
		BacklogBytes: DefaultBacklogBytes,
		Words:        audience.Words(o.Heartbeat.Event, o.GapEvent),
	}
	if err := s.deriveFirst(); err != nil {
		return nil, err
	}
	s.deriveVary()
	if err := s.deriveCORS(); err != nil {
		return nil, err
	}
	return s, nil
}

func (o *Options) setDefaults() {
	setDefault(&o.Heartbeat.Interval, caddy.Duration(DefaultHeartbeat))
	setDefault(&o.History.Events, DefaultHistoryEvents)
	setDefault(&o.History.Age, caddy.Duration(DefaultHistoryAge))
	setDefault(&o.History.Size, DefaultHistorySize)
	o.History.Size = min(o.History.Size, math.MaxInt) // an int has 32 bits on some machines
	setDefault(&o.Catchup.Connections, DefaultCatchups)
	setDefault(&o.Catchup.Timeout, caddy.Duration(DefaultCatchupTimeout))
	setDefault(&o.Linger.Duration, caddy.Duration(DefaultLinger))
	setDefault(&o.Linger.Topics, DefaultLingerTopics)
	setDefault(&o.Wait, caddy.Duration(DefaultWait))
	if o.Reconnect.Min == 0 {
		o.Reconnect.Min = caddy.Duration(DefaultReconnectMin)
		if o.Reconnect.Max > 0 {
			o.Reconnect.Min = min(o.Reconnect.Min, o.Reconnect.Max)
		}
	}
	setDefault(&o.Reconnect.Max, max(o.Reconnect.Min, caddy.Duration(DefaultReconnectMax)))
	setDefault(&o.MaxEventSize, DefaultMaxEventSize)
	setDefault(&o.MaxTopics.Total, DefaultMaxTopics)
	setDefault(&o.Compress.Level, gzip.DefaultLevel)
	setDefault(&o.Compress.From, DefaultCompressFrom)
	setDefault(&o.DispatchTimeout, caddy.Duration(DefaultDispatchTimeout))
	setDefault(&o.StreamCloseDelay, caddy.Duration(DefaultStreamCloseDelay))
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// deriveFirst reads where clients without an id begin.
func (s *Settings) deriveFirst() error {
	switch s.FirstEvent {
	case "", "newest":
		s.FirstEvents = 0
	case "oldest":
		s.FirstEvents = relay.AllEvents
	default:
		n, err := strconv.Atoi(s.FirstEvent)
		if err != nil || n < 1 {
			return fmt.Errorf("checking first_event: %q is not newest, oldest or a positive number", s.FirstEvent)
		}
		s.FirstEvents = n
	}
	return nil
}

// deriveVary tells headers and placeholders apart.
func (s *Settings) deriveVary() {
	for _, name := range s.Vary {
		if placeholder, ok := strings.CutPrefix(name, "{"); ok {
			s.VaryPlaceholders = append(s.VaryPlaceholders, strings.TrimSuffix(placeholder, "}"))
		} else {
			s.VaryHeaders = append(s.VaryHeaders, fields.Canonical(name))
		}
	}
}

// deriveCORS reads which pages may read the streams. It adds to the headers of vary.
func (s *Settings) deriveCORS() error {
	var err error
	s.CORS, err = cors.New(s.CORSOrigins)
	if err != nil {
		return err
	}
	s.CORS.Headers = slices.Clone(s.VaryHeaders)
	for _, placeholder := range s.VaryPlaceholders {
		if name, ok := strings.CutPrefix(placeholder, "http.request.header."); ok {
			s.CORS.Headers = append(s.CORS.Headers, fields.Canonical(name))
		}
	}
	if !s.CORS.Enabled() {
		// The origin decides which pages may read the stream, so it must see
		// who asks, and its answer holds for them alone.
		s.VaryHeaders = append(s.VaryHeaders, "Origin")
	}
	return nil
}

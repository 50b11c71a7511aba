package ssefanout

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

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// defaultStranger is an address that is nobody's (RFC 5737). Whatever judges by
// address, in the site or in the origin, judges a shared request a stranger.
const defaultStranger = "192.0.2.1"

const (
	defaultHeartbeat        = 15 * time.Second
	defaultHistoryEvents    = 1000
	defaultHistoryAge       = 5 * time.Minute
	defaultHistorySize      = 4 << 20
	defaultCatchups         = 2
	defaultCatchupTimeout   = 10 * time.Second
	defaultLinger           = 10 * time.Second
	defaultLingerTopics     = 100
	defaultWait             = 10 * time.Second
	defaultReconnectMin     = 500 * time.Millisecond
	defaultReconnectMax     = 30 * time.Second
	defaultMaxEventSize     = 16 << 20
	defaultMaxTopics        = 10000
	defaultDispatchTimeout  = 10 * time.Second
	defaultStreamCloseDelay = 10 * time.Second
	defaultBacklogBytes     = 64 << 20
)

// provision fills in the defaults and derives what is looked up per request.
func (o *Options) provision(wrapping bool) error {
	o.wrapping = wrapping
	o.stranger = net.JoinHostPort(cmp.Or(o.AskFrom, defaultStranger), "1")
	o.strip = o.Credentials == "strip" || o.Credentials == "" && !wrapping
	o.reject = o.Unavailable == "reject"

	o.setDefaults()
	if err := o.deriveFirst(); err != nil {
		return err
	}
	o.words = wordsFor(o)
	o.deriveVary()
	return o.deriveCORS()
}

func (o *Options) setDefaults() {
	setDefault(&o.Heartbeat.Interval, caddy.Duration(defaultHeartbeat))
	setDefault(&o.History.Events, defaultHistoryEvents)
	setDefault(&o.History.Age, caddy.Duration(defaultHistoryAge))
	setDefault(&o.History.Size, defaultHistorySize)
	o.History.Size = min(o.History.Size, math.MaxInt) // an int has 32 bits on some machines
	setDefault(&o.Catchup.Connections, defaultCatchups)
	setDefault(&o.Catchup.Timeout, caddy.Duration(defaultCatchupTimeout))
	setDefault(&o.Linger.Duration, caddy.Duration(defaultLinger))
	setDefault(&o.Linger.Topics, defaultLingerTopics)
	setDefault(&o.Wait, caddy.Duration(defaultWait))
	if o.Reconnect.Min == 0 {
		o.Reconnect.Min = caddy.Duration(defaultReconnectMin)
		if o.Reconnect.Max > 0 {
			o.Reconnect.Min = min(o.Reconnect.Min, o.Reconnect.Max)
		}
	}
	setDefault(&o.Reconnect.Max, max(o.Reconnect.Min, caddy.Duration(defaultReconnectMax)))
	setDefault(&o.MaxEventSize, defaultMaxEventSize)
	setDefault(&o.MaxTopics.Total, defaultMaxTopics)
	setDefault(&o.DispatchTimeout, caddy.Duration(defaultDispatchTimeout))
	setDefault(&o.backlogBytes, defaultBacklogBytes)
	setDefault(&o.StreamCloseDelay, caddy.Duration(defaultStreamCloseDelay))
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// deriveFirst reads where clients without an id begin.
func (o *Options) deriveFirst() error {
	switch o.FirstEvent {
	case "", "newest":
		o.first = 0
	case "oldest":
		o.first = relay.AllEvents
	default:
		n, err := strconv.Atoi(o.FirstEvent)
		if err != nil || n < 1 {
			return fmt.Errorf("checking first_event: %q is not newest, oldest or a positive number", o.FirstEvent)
		}
		o.first = n
	}
	return nil
}

// deriveVary tells headers and placeholders apart.
func (o *Options) deriveVary() {
	for _, name := range o.Vary {
		if placeholder, ok := strings.CutPrefix(name, "{"); ok {
			o.varyReplacer = append(o.varyReplacer, strings.TrimSuffix(placeholder, "}"))
		} else {
			o.varyHeaders = append(o.varyHeaders, fields.Canonical(name))
		}
	}
}

// deriveCORS reads which pages may read the streams. It adds to the headers of vary.
func (o *Options) deriveCORS() error {
	var err error
	o.cors, err = newCORSPolicy(o.CORSOrigins)
	if err != nil {
		return err
	}
	o.cors.headers = slices.Clone(o.varyHeaders)
	for _, placeholder := range o.varyReplacer {
		if name, ok := strings.CutPrefix(placeholder, "http.request.header."); ok {
			o.cors.headers = append(o.cors.headers, fields.Canonical(name))
		}
	}
	if !o.cors.enabled() {
		// The origin decides which pages may read the stream, so it must see
		// who asks, and its answer holds for them alone.
		o.varyHeaders = append(o.varyHeaders, "Origin")
	}
	return nil
}

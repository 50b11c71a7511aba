package jetstream

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// reconnectWait is how long to wait before a server is tried again.
const reconnectWait = 500 * time.Millisecond

// unansweredPings is how many pings may be without an answer, one a lease, before another
// server is tried.
const unansweredPings = 2

// natsOptions are how the servers are reached. nats.go reconnects by itself, for ever.
func (a *App) natsOptions(node string) ([]nats.Option, error) {
	logger := a.logger
	options := []nats.Option{
		nats.Name("sse_fanout " + node),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		// A connection that is half open would keep the node from the fleet for minutes.
		nats.PingInterval(a.settings().Lease),
		nats.MaxPingsOutstanding(unansweredPings),
		// Wrong credentials may be put right at the server, and streams go on meanwhile.
		nats.IgnoreAuthErrorAbort(),
		// What is published while there is no connection would come when the lease is over.
		nats.ReconnectBufSize(-1),
		nats.ConnectHandler(func(c *nats.Conn) {
			logger.Info("connected to NATS", zap.String("server", c.ConnectedUrlRedacted()), zap.String("version", c.ConnectedServerVersion()))
		}),
		nats.ReconnectHandler(func(c *nats.Conn) {
			logger.Info("connected to NATS again", zap.String("server", c.ConnectedUrlRedacted()))
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				logger.Warn("lost the connection to NATS, trying the servers in turn", zap.Error(err))
			}
		}),
	}
	if a.Credentials != "" {
		options = append(options, nats.UserCredentials(a.Credentials))
	}
	if a.NKey != "" {
		option, err := nats.NkeyOptionFromSeed(a.NKey)
		if err != nil {
			return nil, fmt.Errorf("reading the NKey in %s: %w", a.NKey, err)
		}
		options = append(options, option)
	}
	if len(a.TLS.CA) > 0 {
		options = append(options, nats.RootCAs(a.TLS.CA...))
	}
	if a.TLS.Certificate != "" {
		options = append(options, nats.ClientCert(a.TLS.Certificate, a.TLS.Key))
	}
	return options, nil
}

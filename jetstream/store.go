package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A store is the stream and the bucket of a fleet.
type store struct {
	// Static after construction.
	conn     *nats.Conn
	js       jetstream.JetStream
	name     string // of the stream
	settings Settings
	secret   secret
	noticed  func(what, subject string, err error)
	now      func() time.Time // of leases

	helpers sync.WaitGroup

	mu     sync.Mutex
	bucket jetstream.KeyValue // once it was opened; guarded by mu
}

// requestTimeout bounds a request to JetStream.
const requestTimeout = 5 * time.Second

// Metadata of the stream.
const (
	metaFingerprint = "sse_fanout_fingerprint" // of the secret
	metaVersion     = "sse_fanout_version"
)

var (
	// errOtherSecret says that the nodes of a fleet have different secrets.
	errOtherSecret = errors.New("the stream was made by a node with another secret: the nodes of a fleet need the same, " +
		"and two fleets need streams of different names")
	// errOtherStream says that there is a stream of that name that is somebody else's.
	errOtherStream  = errors.New("there is a stream of that name that sse_fanout has not made: choose another name, or delete the stream")
	errNotConnected = errors.New("there is no connection to a NATS server: check that one of servers runs and can be reached")
)

func (s *store) notice(what, subject string, err error) {
	if s.noticed != nil && !isTransient(err) {
		s.noticed(what, subject, err)
	}
}

// info returns the stream's. The stream is made if it is not there.
func (s *store) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	if err := s.checkServer(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stream, err := s.js.Stream(ctx, s.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = s.js.CreateStream(ctx, s.streamConfig())
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			stream, err = s.js.Stream(ctx, s.name) // another node was first
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the stream %s: %w", s.name, explain(err))
	}
	info := stream.CachedInfo()
	if err := s.check(info); err != nil {
		return nil, fmt.Errorf("opening the stream %s: %w", s.name, err)
	}
	return info, nil
}

// oldestServer is the oldest version of NATS servers that the fleet is for.
var oldestServer = [2]int{2, 11}

// checkServer reports whether the server can be used.
func (s *store) checkServer() error {
	if !s.conn.IsConnected() {
		if err := s.conn.LastError(); err != nil {
			return fmt.Errorf("%w: %w", errNotConnected, err)
		}
		return errNotConnected
	}
	if err := checkVersion(s.conn.ConnectedServerVersion()); err != nil {
		return fmt.Errorf("checking the NATS server %s: %w", s.conn.ConnectedUrlRedacted(), err)
	}
	return nil
}

func checkVersion(version string) error {
	var major, minor int
	if n, err := fmt.Sscanf(version, "%d.%d", &major, &minor); n < 2 {
		return fmt.Errorf("reading its version %q: %w", version, err)
	}
	if major < oldestServer[0] || major == oldestServer[0] && minor < oldestServer[1] {
		return fmt.Errorf("its version is %s, and the fleet needs %d.%d or newer: update the servers", version, oldestServer[0], oldestServer[1])
	}
	return nil
}

// check reports whether a stream is this fleet's.
func (s *store) check(info *jetstream.StreamInfo) error {
	switch print, ok := info.Config.Metadata[metaFingerprint]; {
	case !ok:
		return errOtherStream
	case print != s.secret.fingerprint():
		return errOtherSecret
	case info.Config.Metadata[metaVersion] != version:
		return fmt.Errorf("the stream is for version %q of sse_fanout's messages, and this node has version %q: "+
			"run one version on all nodes, or name another stream", info.Config.Metadata[metaVersion], version)
	}
	if kept := info.Config.MaxMsgsPerSubject; kept > 0 && kept < fewestEvents {
		return fmt.Errorf("the stream keeps %d messages of each topic, and the fleet needs %d at least: "+
			"set --max-msgs-per-subject with nats stream edit", kept, fewestEvents)
	}
	return nil
}

func (s *store) streamConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              s.name,
		Description:       "events of sse_fanout's fleet, a subject for each topic",
		Subjects:          []string{subjects(s.name)},
		Storage:           s.settings.storage(),
		Replicas:          s.settings.Replicas,
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardOld,
		MaxAge:            s.settings.HistoryAge,
		MaxMsgsPerSubject: s.settings.HistoryEvents,
		MaxBytes:          s.settings.maxBytes(),
		AllowDirect:       true,
		Metadata:          map[string]string{metaFingerprint: s.secret.fingerprint(), metaVersion: version},
	}
}

// leases returns the bucket of the leases. It is made if it is not there.
func (s *store) leases(ctx context.Context) (jetstream.KeyValue, error) {
	s.mu.Lock()
	bucket := s.bucket
	s.mu.Unlock()
	if bucket != nil {
		// A request would wait in vain.
		return bucket, s.checkServer()
	}
	if _, err := s.info(ctx); err != nil {
		return nil, err // a node that cannot use the stream must not hold leases
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	bucket, err := s.openLeases(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening the bucket %s: %w", leases(s.name), explain(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bucket = bucket
	return bucket, nil
}

// reopen is called after a request to the bucket has failed. The next call of leases looks
// whether the bucket is there.
func (s *store) reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bucket = nil
}

func (s *store) openLeases(ctx context.Context) (jetstream.KeyValue, error) {
	name := leases(s.name)
	bucket, err := s.js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		bucket, err = s.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket:      name,
			Description: "which node of sse_fanout's fleet asks the origin of a topic",
			TTL:         s.settings.Lease,
			Storage:     s.settings.storage(),
			Replicas:    s.settings.Replicas,
		})
		if errors.Is(err, jetstream.ErrBucketExists) {
			bucket, err = s.js.KeyValue(ctx, name)
		}
	}
	if err != nil {
		return nil, err
	}
	status, err := bucket.Status(ctx)
	if err != nil {
		return nil, err
	}
	if status.TTL() != s.settings.Lease {
		return nil, fmt.Errorf("its keys live for %s, and the lease of this node is %s: set lease to %s on all nodes, "+
			"or delete the bucket, which a node makes anew", status.TTL(), s.settings.Lease, status.TTL())
	}
	return bucket, nil
}

// forget deletes a consumer that is not needed any more. The server would, after a while.
func (s *store) forget(consumer string) {
	if !s.conn.IsConnected() {
		return
	}
	s.helpers.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), farewellTime)
		defer cancel()
		_ = s.js.DeleteConsumer(ctx, s.name, consumer)
	})
}

// explain adds to an error of JetStream what to do about it.
func explain(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: enable JetStream on the NATS servers (jetstream { ... })", err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: enable JetStream for the account of these credentials", err)
	case errors.As(err, &api) && api.ErrorCode == errCodeNoReplicas:
		return fmt.Errorf("%w: there are fewer servers with JetStream than replicas; lower replicas, or add servers", err)
	case errors.Is(err, nats.ErrPermissionViolation):
		return fmt.Errorf("%w: permit it to the user of these credentials; docs/fleet.md lists the subjects", err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: JetStream does not answer; either it has no leader now, "+
			"or the user of these credentials has not all permissions that docs/fleet.md lists", err)
	}
	return err
}

// errCodeNoReplicas is JSInsufficientResources of the server: "insufficient resources".
const errCodeNoReplicas = 10023

// Settings are a fleet's, but for how its servers are reached.
type Settings struct {
	Stream        string
	Replicas      int
	Memory        bool
	Lease         time.Duration
	HistoryEvents int64
	HistoryAge    time.Duration
	MaxBytes      int64
}

func (s *Settings) storage() jetstream.StorageType {
	if s.Memory {
		return jetstream.MemoryStorage
	}
	return jetstream.FileStorage
}

func (s *Settings) maxBytes() int64 {
	if s.MaxBytes == 0 {
		return -1
	}
	return s.MaxBytes
}

package synego

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	synegov1 "github.com/lostabaddon/synegobase/sdk-go/internal/gen/synego/v1"
)

const (
	// answerWithin is how long the sidecar has for its first answer.
	answerWithin = 5 * time.Second
	// maxLinkMessage bounds each message of the link; bytes.
	maxLinkMessage = 1 << 20
	// complainEvery is how often an unreachable sidecar is logged.
	complainEvery = 30 * time.Second
)

// declaration is what a service says of itself.
type declaration struct {
	service, instance, version, attachment string

	generation uint32
	listeners  []*synegov1.Listener
	handlers   []*synegov1.Handler
	routes     []string
	state      *synegov1.State
}

func helloOf(d declaration) *synegov1.Hello {
	return &synegov1.Hello{
		ProtocolMin: 1, ProtocolMax: 1,
		Features: []synegov1.Feature{synegov1.Feature_FEATURE_LIVE_CONFIG, synegov1.Feature_FEATURE_IN_PLACE_DRAIN},
		Service:  d.service, Instance: d.instance, Version: d.version, Sdk: sdkVersion, AttachmentId: d.attachment,
		Pid: uint32(os.Getpid()), Generation: d.generation, Listeners: d.listeners,
		Handlers: &synegov1.Handlers{Handler: d.handlers, Route: d.routes}, State: d.state,
	}
}

// generationOf reads SYNEGO_GENERATION; what is no number counts as the first.
func generationOf(text string) uint32 {
	generation, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(generation)
}

// attachment keeps the link to the sidecar for the life of the process. State is told, not events: each new stream
// begins with a whole Hello, so a link that was lost needs no replay.
type attachment struct {
	address   string
	world     *world
	log       *slog.Logger
	hello     func(attachment string) *synegov1.Hello
	state     func() *synegov1.State
	changed   <-chan struct{} // there is a new state to tell
	load      func(sequence uint64) *synegov1.Load
	welcome   func(*synegov1.Welcome)
	settings  func(*synegov1.Settings)
	drain     func(*synegov1.Drain)
	id        string
	sequence  uint64
	complains seldom
}

// after says what follows the end of a stream.
type after int

const (
	afterWait after = iota
	afterNow
	afterRefused
)

// backOff returns how long to wait before an attempt, counted from 1 in a row of failures: 50 ms × 2 up to 1 s ± 20 %.
func backOff(attempt int) time.Duration {
	base := min(50*time.Millisecond<<min(attempt-1, 10), time.Second)
	return time.Duration(float64(base) * (0.8 + 0.4*rand.Float64()))
}

// afterStatus says what follows a stream that ended with this status.
func afterStatus(code codes.Code) after {
	switch code {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.AlreadyExists:
		return afterRefused
	}
	return afterWait
}

// run attaches, again and again, until ctx ends or the sidecar refuses for good.
func (a *attachment) run(ctx context.Context) {
	a.complains.period = complainEvery
	for attempt := 1; ctx.Err() == nil; attempt++ {
		welcomed, next, err := a.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if next == afterRefused {
			refusal := errorOfStatus("", status.Convert(err), nil)
			a.log.Error("the sidecar refused this service, which runs on without it", "reason", refusal.reason(), "error", refusal.Message)
			a.world.change(func(link *Link) { link.State, link.Refusal = LinkRefused, refusal })
			return
		}
		a.world.change(func(link *Link) { link.State = LinkConnecting })
		if welcomed {
			attempt = 1
		}
		if next == afterNow {
			continue
		}
		if a.complains.now() {
			a.log.Warn("no link to the sidecar, which is tried again; requests go on", "sidecar", a.address, "error", err)
		}
		_ = wait(ctx, backOff(attempt)) // the loop looks at ctx
	}
	a.world.change(func(link *Link) { link.State = LinkClosed })
}

// once is the life of one stream.
func (a *attachment) once(ctx context.Context) (welcomed bool, next after, err error) {
	conn, err := dialSidecar(a.address)
	if err != nil {
		return false, afterWait, err
	}
	defer conn.Close()
	// The stream outlives ctx for a moment, so that the last state gets through.
	open, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stopEarly := context.AfterFunc(ctx, cancel)
	stream, err := synegov1.NewSidecarClient(conn).Attach(open)
	if err == nil {
		err = stream.Send(fromService(a.hello(a.id)))
	}
	received, ended := a.receive(stream, err)
	tick := time.NewTimer(answerWithin)
	defer tick.Stop()
	var told *synegov1.State
	every := time.Duration(0)
	for {
		select {
		case message := <-received:
			if welcome := message.GetWelcome(); welcome != nil && !welcomed {
				stopEarly()
				welcomed, a.id, told = true, welcome.GetAttachmentId(), nil
				every = time.Duration(min(max(welcome.GetReportEveryMs(), 250), 10_000)) * time.Millisecond
				tick.Reset(every)
				a.welcome(welcome)
				a.settle(stream, welcome.GetSettings())
				told = a.tell(stream, told)
				continue
			}
			if message.GetMoved() != nil {
				return welcomed, afterNow, nil
			}
			a.settle(stream, message.GetSettings())
			if drain := message.GetDrain(); drain != nil {
				a.drain(drain)
			}
		case err := <-ended:
			return welcomed, afterStatus(status.Code(err)), err
		case <-tick.C:
			if !welcomed {
				return false, afterWait, errors.New("no answer to Hello")
			}
			a.sequence++
			_ = stream.Send(fromService(a.load(a.sequence))) // a broken stream is told by ended
			tick.Reset(every)
		case <-a.whileWelcomed(welcomed):
			told = a.tell(stream, told)
		case <-ctx.Done():
			a.tell(stream, told)
			_ = stream.CloseSend()
			bye := time.NewTimer(time.Second)
			defer bye.Stop()
			for {
				select {
				case <-received:
				case <-ended:
					return welcomed, afterWait, ctx.Err()
				case <-bye.C:
					return welcomed, afterWait, ctx.Err()
				}
			}
		}
	}
}

// whileWelcomed is the news of the state, which wait until the sidecar accepted.
func (a *attachment) whileWelcomed(welcomed bool) <-chan struct{} {
	if welcomed {
		return a.changed
	}
	return nil
}

// tell sends the state unless the sidecar knows it, and returns what it knows then.
func (a *attachment) tell(stream grpc.BidiStreamingClient[synegov1.FromService, synegov1.ToService], told *synegov1.State) *synegov1.State {
	state := a.state()
	if proto.Equal(state, told) {
		return told
	}
	_ = stream.Send(fromService(state)) // a broken stream is told by Recv
	return state
}

// settle puts settings in force and says so.
func (a *attachment) settle(stream grpc.BidiStreamingClient[synegov1.FromService, synegov1.ToService], settings *synegov1.Settings) {
	if settings == nil {
		return
	}
	a.settings(settings)
	_ = stream.Send(fromService(&synegov1.Applied{Revision: settings.GetRevision()})) // as in tell
}

// receive reads a stream to its end, which is then in ended.
func (a *attachment) receive(stream grpc.BidiStreamingClient[synegov1.FromService, synegov1.ToService], failed error) (<-chan *synegov1.ToService, <-chan error) {
	received, ended := make(chan *synegov1.ToService), make(chan error, 1)
	if stream == nil {
		ended <- failed
		return received, ended
	}
	go func() {
		for {
			message, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case received <- message:
			case <-stream.Context().Done():
				ended <- stream.Context().Err()
				return
			}
		}
	}()
	return received, ended
}

func fromService(message proto.Message) *synegov1.FromService {
	switch m := message.(type) {
	case *synegov1.Hello:
		return &synegov1.FromService{Is: &synegov1.FromService_Hello{Hello: m}}
	case *synegov1.State:
		return &synegov1.FromService{Is: &synegov1.FromService_State{State: m}}
	case *synegov1.Load:
		return &synegov1.FromService{Is: &synegov1.FromService_Load{Load: m}}
	case *synegov1.Applied:
		return &synegov1.FromService{Is: &synegov1.FromService_Applied{Applied: m}}
	}
	return &synegov1.FromService{}
}

// dialSidecar opens a connection to the service protocol at `unix:PATH` or `HOST:PORT`.
func dialSidecar(address string) (*grpc.ClientConn, error) {
	network, target := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, target = "unix", path
	}
	return grpc.NewClient("passthrough:///sidecar",
		grpc.WithAuthority("localhost"), // servers refuse a socket's path here
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxLinkMessage), grpc.MaxCallSendMsgSize(maxLinkMessage)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, target)
		}),
	)
}

package openai

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync/atomic"

	"uploadfs/uploader/api"

	"github.com/openai/openai-go/v3/option"
)

// maxAnswer bounds the bytes read of one answer. The longest valid answer is a page
// of the list of Files, at some 300 bytes each.
const maxAnswer = 4 << 20

// call is one call of a Backend method.
type call struct {
	op       string
	uploadID string
	body     *io.SectionReader // of a part, else nil
	into     io.Writer         // receives the content of a File, else nil
}

// send makes the request with the SDK and checks the answer. Its error after a
// successful exchange says what is wrong with the answer.
type send func(ctx context.Context, opts ...option.RequestOption) error

// do makes the call. If the key is refused and there is a new one, it makes the
// call once more. Its errors are *[api.Error] and contain no key.
func (b *Backend) do(ctx context.Context, c call, send send) error {
	key := b.keys.current()
	fault := b.attempt(ctx, c, key, send)
	if fault != nil && fault.Status == http.StatusUnauthorized {
		next, err := b.keys.renew(key)
		switch {
		case err != nil:
			fault.Message += "; " + oneLine(err.Error())
		case next != key:
			fault = b.attempt(ctx, c, next, send)
		}
	}
	if fault == nil {
		return nil // a nil *api.Error would be an error that is not nil
	}
	fault.Message = clip(b.keys.redact(fault.Message), maxMessage) // redact first: a cut key would not be found
	if fault.Err != nil {
		if text := fault.Err.Error(); b.keys.redact(text) != text {
			fault.Err = errors.New(b.keys.redact(text))
		}
	}
	return fault
}

// attempt makes one request. It returns nil on success.
func (b *Backend) attempt(ctx context.Context, c call, key string, send send) *api.Error {
	x := &exchange{call: c}
	var size int64
	if c.body != nil {
		p, err := newPart(c.body)
		if err != nil {
			return &api.Error{Op: c.op, UploadID: c.uploadID, Kind: api.Local, Err: err}
		}
		x.part, size = p, c.body.Size()
		api.NoteProgress(ctx, 0)
	}
	watched, watchdog := watch(ctx, limits{
		stall:  b.cfg.Stall,
		answer: answerLimit(b.cfg.AnswerStall, b.cfg.SlowestRate, size, api.AnswerTimeouts(ctx)),
	}, func() { x.report(ctx) })
	x.watchdog = watchdog
	watched = httptrace.WithClientTrace(watched, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			x.connected.Store(true)
			watchdog.connected(info.Conn)
		},
		WroteRequest:         func(httptrace.WroteRequestInfo) { watchdog.wrote() },
		GotFirstResponseByte: watchdog.answered,
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			watchdog.interim()
			return nil
		},
	})
	opts := []option.RequestOption{option.WithMiddleware(x.roundTrip)}
	if key != "" {
		opts = append(opts, option.WithAPIKey(key))
	}

	err := send(watched, opts...)
	cause := context.Cause(watched) // before stop, which ends the context
	watchdog.stop()
	var partErr error
	if x.part != nil {
		partErr = x.part.close()
	}
	if err == nil {
		if x.part != nil {
			api.NoteProgress(ctx, size)
		}
		return nil
	}
	if x.refusal != nil {
		return x.refusal
	}
	fault := &api.Error{Op: c.op, UploadID: c.uploadID, Status: x.status}
	switch {
	case partErr != nil:
		fault.Kind, fault.Err = api.Local, partErr
	case errors.As(cause, new(*stallError)):
		fault.Err = cause
	case ctx.Err() != nil:
		cause := context.Cause(ctx)
		fault.Kind, fault.Err = api.KindOf(cause), cause
		if !errors.Is(cause, ctx.Err()) {
			fault.Err = fmt.Errorf("%w (%w)", cause, ctx.Err())
		}
		fault.Message = cause.Error()
	case !x.reached:
		// The SDK rejected the parameters before it made a request.
		fault.Kind, fault.Err = api.Refused, err
	case x.status != 0:
		fault.Message = fmt.Sprintf("unexpected answer (%s): %v", statusText(x.status), err)
		if text := excerpt(x.answer); text != "" {
			fault.Message += ": " + text
		}
	default:
		fault.Message, fault.Err = "no answer: "+explain(withoutURL(err)), withoutURL(err)
	}
	if x.status == 0 && !x.connected.Load() {
		fault.Err = notSent(fault.Err)
	}
	return fault
}

// notSent adds [api.ErrNotSent] to the chain of err.
func notSent(err error) error {
	if err == nil {
		return api.ErrNotSent
	}
	return fmt.Errorf("%w: %w", api.ErrNotSent, err)
}

// withoutURL removes the method and the URL from an error of the HTTP client.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// explain returns the text of a connection error in one line. Where the remedy is
// known, it names it.
func explain(err error) string {
	if errors.Is(err, io.EOF) {
		return "the server closed the connection"
	}
	text := oneLine(err.Error())
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		text += " (if the service has its own authority, name its certificates in SSL_CERT_FILE)"
	}
	return text
}

// exchange is the HTTP side of one attempt.
type exchange struct {
	call
	watchdog *watchdog
	part     *part // nil unless op is a part

	connected atomic.Bool // set by the transport's goroutines

	// The following belong to the goroutine that makes the call.
	reached bool       // the SDK made a request
	status  int        // of the answer, 0 while there is none
	answer  []byte     // its body, as far as it was read
	refusal *api.Error // the answer, if it was not a success
}

// roundTrip is the middleware of one request. It sets the body of a part. It reads
// the whole answer, so that the connection can be used again. It turns refusals, and
// answers that are not JSON, into errors, because the SDK does not report them well.
func (x *exchange) roundTrip(req *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	x.reached = true
	if x.part != nil {
		x.part.attach(req)
	}
	res, err := next(req)
	if err != nil {
		return nil, err
	}
	if again := x.redirected(req, res); again != nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
		_ = res.Body.Close()
		if res, err = next(again); err != nil {
			return nil, err
		}
	}
	defer res.Body.Close()
	x.status = res.StatusCode
	if x.into != nil && res.StatusCode/100 == 2 {
		if _, err := io.Copy(x.into, watchedBody{res.Body, x.watchdog}); err != nil {
			return nil, fmt.Errorf("cut short: %w", err)
		}
		res.Body = http.NoBody
		return res, nil
	}
	x.answer, err = io.ReadAll(io.LimitReader(watchedBody{res.Body, x.watchdog}, maxAnswer))
	if res.StatusCode < 200 || res.StatusCode > 299 {
		// Also if the rest of the answer was lost: its status says enough.
		x.refusal = refusal(x.call, res.StatusCode, res.Header, x.answer)
		return nil, x.refusal
	}
	if err != nil {
		return nil, fmt.Errorf("cut short: %w", err)
	}
	if trimmed := bytes.TrimSpace(x.answer); !bytes.HasPrefix(trimmed, []byte("{")) || !json.Valid(trimmed) {
		return nil, errors.New("not a JSON object")
	}
	res.Header.Set("Content-Type", "application/json") // some gateways drop it
	res.Body = io.NopCloser(bytes.NewReader(x.answer))
	return res, nil
}

// redirected returns the request to make instead of req after the answer res: a 307 to
// another path of the same server is followed once, with its body and its key. It is
// nil after any other answer.
func (x *exchange) redirected(req *http.Request, res *http.Response) *http.Request {
	if res.StatusCode != http.StatusTemporaryRedirect {
		return nil
	}
	to, err := res.Location()
	if err != nil || to.User != nil || !sameOrigin(req.URL, to) {
		return nil
	}
	again := req.Clone(req.Context())
	again.URL, again.Host = to, ""
	switch {
	case x.part != nil:
		x.part.attach(again)
	case req.GetBody != nil:
		if again.Body, err = req.GetBody(); err != nil {
			return nil
		}
	}
	return again
}

// sameOrigin reports whether two URLs have the same scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		switch {
		case u.Port() != "":
			return u.Port()
		case u.Scheme == "https":
			return "443"
		default:
			return "80"
		}
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// report tells the caller how much of the part the peer has acknowledged. The
// connection's count includes headers and TLS, so it is bounded by what was read.
func (x *exchange) report(ctx context.Context) {
	if x.part != nil {
		api.NoteProgress(ctx, min(x.watchdog.acknowledged(), x.part.read.Load()))
	}
}

// watchedBody is the body of an answer. Its arrival is progress.
type watchedBody struct {
	io.Reader
	watchdog *watchdog
}

func (b watchedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if n > 0 {
		b.watchdog.answered()
	}
	return n, err
}

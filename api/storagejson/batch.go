package storagejson

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"

	"giggle/fault"
	"giggle/rest"
)

// The bounds of https://cloud.google.com/storage/docs/batch#overview.
const (
	maxBatch      = 100
	maxBatchBytes = 10 << 20
)

// batch answers many calls in one request, each on its own as if it had come alone: with its own Authorization, else
// that of the whole.
func (s *Server) batch(serve http.Handler) rest.Func {
	return func(ctx context.Context, r *rest.Request) (any, error) {
		calls, err := readBatch(r)
		if err != nil {
			return nil, err
		}
		return rest.Write(func(w http.ResponseWriter) {
			out := multipart.NewWriter(w)
			_ = out.SetBoundary("batch_" + out.Boundary()[:40])
			w.Header().Set("Content-Type", "multipart/mixed; boundary="+out.Boundary())
			w.Header().Set("X-Content-Type-Options", "nosniff")
			for _, c := range calls {
				answer := &answer{header: http.Header{}}
				if c.err != nil {
					WriteError(answer, r.Request, rest.NewFailure("", c.err))
				} else {
					serve.ServeHTTP(answer, c.request.WithContext(ctx))
				}
				if answer.write(out, c.id) != nil || ctx.Err() != nil {
					panic(http.ErrAbortHandler) // the client must not take some for all
				}
			}
			_ = out.Close()
		}), nil
	}
}

// inner is one call of a batch.
type inner struct {
	id      string // Content-ID
	request *http.Request
	err     error
}

// readBatch reads the calls of a batch.
func readBatch(r *rest.Request) (calls []inner, err error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" || params["boundary"] == "" || len(params["boundary"]) > 70 {
		return nil, fault.Invalid("Content-Type", "Invalid value: want multipart/mixed with a boundary.")
	}
	body, err := io.ReadAll(io.LimitReader(fromClient{r.Body}, maxBatchBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxBatchBytes {
		return nil, fault.New(fault.InvalidArgument, "A batch is limited to %d bytes.", maxBatchBytes)
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) && len(calls) > 0 {
			return calls, nil
		}
		if err != nil {
			return nil, &fault.Error{Code: fault.InvalidArgument, Message: "Failed to parse batch request.", Cause: err}
		}
		if len(calls) == maxBatch {
			return nil, fault.New(fault.InvalidArgument, "The batch request has more than %d calls.", maxBatch)
		}
		raw, err := io.ReadAll(part)
		if err != nil {
			return nil, &fault.Error{Code: fault.InvalidArgument, Message: "Failed to parse batch request.", Cause: err}
		}
		calls = append(calls, readInner(r.Request, part.Header, raw))
	}
}

// readInner reads a call: an HTTP request without its protocol version, as most clients write it, or with it.
func readInner(outer *http.Request, about textproto.MIMEHeader, raw []byte) (c inner) {
	c.id = about.Get("Content-ID")
	bad := func(format string, args ...any) inner {
		c.err = fault.New(fault.InvalidArgument, format, args...)
		return c
	}
	if kind, _, err := mime.ParseMediaType(about.Get("Content-Type")); err != nil || kind != "application/http" {
		return bad("A part of a batch must be application/http.")
	}
	lines := bufio.NewReader(bytes.NewReader(bytes.TrimLeft(raw, "\r\n")))
	head := textproto.NewReader(lines)
	first, err := head.ReadLine()
	fields := strings.Fields(first)
	if err != nil && !errors.Is(err, io.EOF) || len(fields) < 2 || len(fields) > 3 {
		return bad("A part of a batch must begin with a method and a path.")
	}
	header, err := head.ReadMIMEHeader()
	if err != nil && !errors.Is(err, io.EOF) {
		return bad("The header of a part is malformed.")
	}
	body, err := io.ReadAll(lines)
	if err != nil {
		return bad("A part of the batch ended early.")
	}
	target := fields[1]
	if i := strings.Index(target, "://"); i >= 0 { // absolute: the host is this one
		if slash := strings.IndexByte(target[i+3:], '/'); slash >= 0 {
			target = target[i+3+slash:]
		}
	}
	if !strings.HasPrefix(target, "/storage/v1/") {
		return bad("A batch has calls of /storage/v1/ only: neither uploads nor downloads.")
	}
	request, err := http.NewRequest(fields[0], "https://"+outer.Host+target, bytes.NewReader(body))
	if err != nil {
		return bad("The call %.60q is malformed.", first)
	}
	if strings.EqualFold(request.URL.Query().Get("alt"), "media") || strings.EqualFold(request.URL.Query().Get("$alt"), "media") {
		return bad("A batch has no downloads.")
	}
	request.Header = http.Header(header)
	for _, name := range []string{"Authorization", "User-Agent", "X-Goog-User-Project"} {
		if v := outer.Header.Get(name); v != "" && request.Header.Get(name) == "" {
			request.Header.Set(name, v)
		}
	}
	request.Host, request.RemoteAddr, request.TLS = outer.Host, outer.RemoteAddr, outer.TLS
	request.Proto, request.ProtoMajor, request.ProtoMinor = outer.Proto, outer.ProtoMajor, outer.ProtoMinor
	c.request = request
	return c
}

// answer keeps what is answered to a call.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// write writes an answer as a part of the batch's.
func (a *answer) write(out *multipart.Writer, id string) error {
	a.WriteHeader(http.StatusOK)
	head := textproto.MIMEHeader{"Content-Type": {"application/http"}}
	if id = strings.TrimSuffix(strings.TrimPrefix(id, "<"), ">"); id != "" {
		head.Set("Content-ID", "<response-"+id+">")
	}
	w, err := out.CreatePart(head)
	if err != nil {
		return err
	}
	a.header.Set("Content-Length", fmt.Sprint(a.body.Len()))
	if _, err = fmt.Fprintf(w, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status)); err != nil {
		return err
	}
	if err := a.header.Write(w); err != nil {
		return err
	}
	if _, err := io.WriteString(w, "\r\n"); err != nil {
		return err
	}
	_, err = a.body.WriteTo(w)
	return err
}

package storagejson

import (
	"errors"
	"io"
	"mime/multipart"
	"net/textproto"
	"strings"

	"giggle/fault"
)

// related is a multipart/related upload: the metadata, and the bytes as they come.
type related struct {
	metadata    []byte
	contentType string // of the data part
	data        io.Reader
}

// readRelated reads the first part of an upload and the header of the second. The data ends with an error when the
// body is cut off or has a third part.
func readRelated(contentType string, body io.Reader) (related, error) {
	boundary, err := boundaryOf(contentType)
	if err != nil {
		return related{}, err
	}
	mr := multipart.NewReader(fromClient{body}, boundary)
	first, err := mr.NextRawPart()
	if err != nil {
		return related{}, malformed(err)
	}
	metadata, err := io.ReadAll(io.LimitReader(first, maxMetadata+1))
	if err != nil {
		return related{}, malformed(err)
	}
	if len(metadata) > maxMetadata {
		return related{}, fault.New(fault.InvalidArgument, "The metadata part is longer than %d bytes.", maxMetadata)
	}
	second, err := mr.NextRawPart()
	if err != nil {
		return related{}, malformed(err)
	}
	if err := plainTransfer(second.Header); err != nil {
		return related{}, err
	}
	return related{metadata, second.Header.Get("Content-Type"), &lastPart{second, mr}}, nil
}

func malformed(err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return known
	}
	return &fault.Error{
		Code:    fault.InvalidArgument,
		Message: "The multipart body is malformed: want a metadata part and a data part.",
		Cause:   err,
	}
}

// plainTransfer refuses encodings that no Google client uses; Python's sends "binary".
func plainTransfer(h textproto.MIMEHeader) error {
	switch e := strings.ToLower(h.Get("Content-Transfer-Encoding")); e {
	case "", "binary", "7bit", "8bit":
		return nil
	default:
		return fault.NotImplemented("Content-Transfer-Encoding", "%.40q is not supported; use binary.", e)
	}
}

// boundaryOf finds the boundary of a multipart content type. gcloud 528 writes it in single quotes, which
// mime.ParseMediaType would keep as a part of it.
func boundaryOf(contentType string) (string, error) {
	kind, params, _ := strings.Cut(contentType, ";")
	bad := fault.Invalid("Content-Type", "Invalid value %.100q: want multipart/related with a boundary.", contentType)
	if !strings.EqualFold(strings.TrimSpace(kind), "multipart/related") {
		return "", bad
	}
	for _, p := range strings.Split(params, ";") {
		name, value, _ := strings.Cut(p, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "boundary") {
			continue
		}
		value = strings.TrimSpace(value)
		for _, quote := range []string{`"`, `'`} {
			if len(value) >= 2 && strings.HasPrefix(value, quote) && strings.HasSuffix(value, quote) {
				value = value[1 : len(value)-1]
			}
		}
		if value == "" || len(value) > 70 || strings.ContainsAny(value, "\r\n") { // RFC 2046 §5.1.1
			return "", bad
		}
		return value, nil
	}
	return "", bad
}

// lastPart is the data part, which must be the last.
type lastPart struct {
	part *multipart.Part
	mr   *multipart.Reader
}

func (l *lastPart) Read(p []byte) (int, error) {
	n, err := l.part.Read(p)
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		return n, malformed(err)
	}
	if _, err := l.mr.NextRawPart(); !errors.Is(err, io.EOF) {
		return n, malformed(errors.New("no end, or a third part"))
	}
	return n, io.EOF
}

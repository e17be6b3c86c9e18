// Package demo goes the main road, from source to an answer, with a plain HTTP client in gcloud's place.
//
// It serves `giggle demo` and the benchmarks. It talks to a platform's public APIs only, over TLS, as any client; it
// resolves no names, so that it needs neither a shell nor DNS.
package demo

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"giggle/shell"
)

// Client calls one platform's APIs as a signed-in user.
type Client struct {
	session shell.Session
	http    *http.Client
	token   string
}

// NewClient signs in.
func NewClient(ctx context.Context, s shell.Session) (*Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(s.CA)) {
		return nil, errors.New("demo: the session has no CA")
	}
	edge := net.JoinHostPort(s.Address, strconv.Itoa(s.Ports.HTTPS))
	c := &Client{session: s, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, edge)
		},
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 100,
	}}}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.RefreshToken}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://oauth2.googleapis.com/token",
		strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var out struct {
		AccessToken string `json:"access_token"`
	}
	if err := c.do(req, &out); err != nil {
		return nil, err
	}
	c.token = out.AccessToken
	return c, nil
}

// Close ends the client's connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do sends a request as the signed-in user. The caller reads the answer and closes it.
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	req.Header.Set("Authorization", "Bearer "+c.token)
	return c.http.Do(req)
}

// Project is the project that the client is signed in to.
func (c *Client) Project() string { return c.session.Project }

// Error is an answer of an API that is not a success.
type Error struct {
	Status  int
	Message string
}

// Error returns the status and the API's text.
func (e *Error) Error() string { return fmt.Sprintf("%d: %s", e.Status, e.Message) }

// do sends a request and decodes the answer.
func (c *Client) do(req *http.Request, out any) error {
	if c.token != "" && req.Header.Get("Authorization") == "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 32<<20))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		var e struct {
			Message string `json:"message"`
			Error   struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		text := string(body)
		if json.Unmarshal(body, &e) == nil && e.Message+e.Error.Message != "" {
			text = e.Message + e.Error.Message
		}
		return fmt.Errorf("%s %s: %w", req.Method, req.URL, &Error{res.StatusCode, text})
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

// call sends a JSON body, if there is one, to an API.
func (c *Client) call(ctx context.Context, method, url string, body, out any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	return c.do(req, out)
}

// is reports whether err is an API's answer with that status.
func is(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

type object = map[string]any

// Region is where everything goes.
const Region = "europe-north1"

func (c *Client) location() string { return "projects/" + c.session.Project + "/locations/" + Region }

// EnsureRepository makes the repository that source deploys push to, unless it is there.
func (c *Client) EnsureRepository(ctx context.Context) error {
	at := "https://artifactregistry.googleapis.com/v1/" + c.location() + "/repositories"
	err := c.call(ctx, "GET", at+"/"+repository, nil, nil)
	if !is(err, http.StatusNotFound) {
		return err
	}
	var op struct{ Name string }
	if err := c.call(ctx, "POST", at+"?repositoryId="+repository, object{"format": "DOCKER"}, &op); err != nil {
		return err
	}
	return c.wait(ctx, "https://artifactregistry.googleapis.com/v1/"+op.Name, nil)
}

const repository = "cloud-run-source-deploy"

// poll is the time between two questions for an operation.
const poll = 20 * time.Millisecond

// wait asks for an operation until it is done.
func (c *Client) wait(ctx context.Context, url string, response any) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		var op struct {
			Done     bool
			Error    *struct{ Message string }
			Response json.RawMessage
		}
		if err := c.call(ctx, "GET", url, nil, &op); err != nil {
			return err
		}
		switch {
		case op.Error != nil:
			return errors.New(op.Error.Message)
		case op.Done && response != nil:
			return json.Unmarshal(op.Response, response)
		case op.Done:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Source is an uploaded archive.
type Source struct {
	Bucket     string `json:"bucket"`
	Object     string `json:"object"`
	Generation string `json:"generation"`
}

// Upload packs a directory and uploads it.
func (c *Client) Upload(ctx context.Context, dir, name string) (Source, error) {
	archive, err := pack(dir)
	if err != nil {
		return Source{}, err
	}
	bucket := "run-sources-" + c.session.Project + "-" + Region
	err = c.call(ctx, "POST", "https://storage.googleapis.com/storage/v1/b?project="+c.session.Project,
		object{"name": bucket, "location": Region}, nil)
	if err != nil && !is(err, http.StatusConflict) {
		return Source{}, err
	}
	at := "https://storage.googleapis.com/upload/storage/v1/b/" + bucket + "/o?uploadType=media&name=" +
		url.QueryEscape(name)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(archive))
	if err != nil {
		return Source{}, err
	}
	req.Header.Set("Content-Type", "application/zip")
	var o struct{ Bucket, Name, Generation string }
	if err := c.do(req, &o); err != nil {
		return Source{}, err
	}
	return Source{o.Bucket, o.Name, o.Generation}, nil
}

// pack makes a zip archive of a directory's files.
func pack(dir string) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		w, err := z.Create(filepath.ToSlash(rel))
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	err = errors.Join(err, z.Close()) // what Close writes belongs to the archive
	return b.Bytes(), err
}

// Build builds a source and returns the image, by digest. On failure the error has the end of the build's log.
func (c *Client) Build(ctx context.Context, src Source, service string) (image string, err error) {
	name := Region + "-docker.pkg.dev/" + c.session.Project + "/" + repository + "/" + service
	var out struct {
		BuildOperation struct{ Name string }
	}
	err = c.call(ctx, "POST", "https://"+Region+"-run.googleapis.com/v2/"+c.location()+"/builds:submit",
		object{"storageSource": src, "imageUri": name, "buildpackBuild": object{}}, &out)
	if err != nil {
		return "", err
	}
	var b struct {
		Status       string
		StatusDetail string
		Results      struct{ Images []struct{ Digest string } }
	}
	if err := c.wait(ctx, "https://cloudbuild.googleapis.com/v1/"+out.BuildOperation.Name, &b); err != nil {
		return "", err
	}
	if b.Status != "SUCCESS" || len(b.Results.Images) == 0 {
		return "", fmt.Errorf("the build ended as %s: %s", b.Status, b.StatusDetail)
	}
	return name + "@" + b.Results.Images[0].Digest, nil
}

// Deploy makes a service of an image, or a new revision of it, and returns its URL once it is ready. Change may alter
// the Knative object before it is sent.
func (c *Client) Deploy(
	ctx context.Context, service, image string, change func(svc map[string]any),
) (serviceURL string, err error) {
	host := "https://" + Region + "-run.googleapis.com"
	at := host + "/apis/serving.knative.dev/v1/namespaces/" + c.session.Project + "/services"
	svc := object{
		"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": object{"name": service},
		"spec": object{"template": object{"metadata": object{"labels": object{"client.knative.dev/nonce": nonce()}}, "spec": object{"containers": []object{{"image": image}}}}},
	}
	if change != nil {
		change(svc)
	}
	var made knativeService
	err = c.call(ctx, "POST", at, svc, &made)
	if is(err, http.StatusConflict) {
		err = c.call(ctx, "PUT", at+"/"+service, svc, &made)
	}
	if err != nil {
		return "", err
	}
	op := made.Metadata.Annotations["run.googleapis.com/operation-id"]
	for {
		var w struct {
			Done     bool
			Error    *struct{ Message string }
			Response knativeService
		}
		if err := c.call(ctx, "POST", host+"/v1/"+c.location()+"/operations/"+op+":wait", object{"timeout": "30s"},
			&w); err != nil {
			return "", err
		}
		if w.Error != nil {
			return "", errors.New(w.Error.Message)
		}
		if !w.Done {
			continue
		}
		for _, cond := range w.Response.Status.Conditions {
			if cond.Type == "Ready" && cond.Status != "True" {
				return "", errors.New(cond.Message)
			}
		}
		return w.Response.Status.URL, nil
	}
}

// Service returns a service as Cloud Run's v1 API has it.
func (c *Client) Service(ctx context.Context, name string) (svc map[string]any, err error) {
	err = c.call(ctx, "GET", c.service(name), nil, &svc)
	return svc, err
}

// Replace sends a service that Service returned back, changed. It does not wait for what follows from that.
func (c *Client) Replace(ctx context.Context, name string, svc map[string]any) error {
	return c.call(ctx, "PUT", c.service(name), svc, nil)
}

func (c *Client) service(name string) string {
	return "https://" + Region + "-run.googleapis.com/apis/serving.knative.dev/v1/namespaces/" + c.session.Project +
		"/services/" + name
}

type knativeService struct {
	Metadata struct{ Annotations map[string]string }
	Status   struct {
		URL        string
		Conditions []struct{ Type, Status, Message string }
	}
}

// nonce makes each deploy a new revision, as gcloud's does.
func nonce() string { return "n" + strconv.FormatInt(time.Now().UnixNano(), 36) }

// AllowAll lets everyone invoke a service.
func (c *Client) AllowAll(ctx context.Context, service string) error {
	return c.call(ctx, "POST", "https://run.googleapis.com/v1/"+c.location()+"/services/"+service+":setIamPolicy",
		object{"policy": object{"bindings": []object{{"role": "roles/run.invoker", "members": []string{"allUsers"}}}}},
		nil)
}

// Get calls a service without credentials and returns its answer.
func (c *Client) Get(ctx context.Context, serviceURL string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, serviceURL, nil)
	if err != nil {
		return "", err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", &Error{res.StatusCode, string(body)}
	}
	return string(body), nil
}

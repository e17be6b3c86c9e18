package rest

import (
	"context"
	"fmt"
	"reflect"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// method is one RPC of a registered service.
type method struct {
	name   string // "/package.Service/Method"
	impl   any
	unary  *grpc.MethodDesc // one of the two is set
	stream *grpc.StreamDesc
	input  protoreflect.MessageType
	output protoreflect.MessageDescriptor
}

// RegisterService adds a service with the REST bindings of its annotations. Mistakes are reported by Build.
func (m *Mux) RegisterService(desc *grpc.ServiceDesc, impl any) {
	m.mustBeOpen()
	if err := m.register(desc, impl); err != nil {
		m.errs = append(m.errs, err)
	}
}

func (m *Mux) register(desc *grpc.ServiceDesc, impl any) error {
	sd, err := serviceDescriptor(desc.ServiceName)
	if err != nil {
		return err
	}
	want := reflect.TypeOf(desc.HandlerType).Elem()
	if impl == nil || !reflect.TypeOf(impl).Implements(want) {
		return fmt.Errorf("%T does not implement %s", impl, want)
	}
	m.descs = append(m.descs, registered{desc, impl})
	for i := range desc.Methods {
		if err := m.addMethod(sd, desc.Methods[i].MethodName,
			&method{impl: impl, unary: &desc.Methods[i]}); err != nil {
			return err
		}
	}
	for i := range desc.Streams {
		if err := m.addMethod(sd, desc.Streams[i].StreamName,
			&method{impl: impl, stream: &desc.Streams[i]}); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mux) addMethod(sd protoreflect.ServiceDescriptor, name string, meth *method) error {
	md := sd.Methods().ByName(protoreflect.Name(name))
	if md == nil {
		return fmt.Errorf("service %s has no method %s", sd.FullName(), name)
	}
	input, err := protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName())
	if err != nil {
		return fmt.Errorf("request of %s: %w", md.FullName(), err)
	}
	meth.name = fmt.Sprintf("/%s/%s", sd.FullName(), name)
	meth.input, meth.output = input, md.Output()
	if m.methods[meth.name] != nil {
		return fmt.Errorf("%s is registered twice", meth.name)
	}
	m.methods[meth.name] = meth
	m.names = append(m.names, meth.name)
	if rule, ok := proto.GetExtension(md.Options(), annotations.E_Http).(*annotations.HttpRule); ok && rule != nil {
		for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
			h := HTTPRule{Body: r.GetBody(), ResponseBody: r.GetResponseBody()}
			switch p := r.GetPattern().(type) {
			case *annotations.HttpRule_Get:
				h.Method, h.Pattern = "GET", p.Get
			case *annotations.HttpRule_Put:
				h.Method, h.Pattern = "PUT", p.Put
			case *annotations.HttpRule_Post:
				h.Method, h.Pattern = "POST", p.Post
			case *annotations.HttpRule_Delete:
				h.Method, h.Pattern = "DELETE", p.Delete
			case *annotations.HttpRule_Patch:
				h.Method, h.Pattern = "PATCH", p.Patch
			case *annotations.HttpRule_Custom:
				h.Method, h.Pattern = p.Custom.GetKind(), p.Custom.GetPath()
			default:
				continue
			}
			m.rules = append(m.rules, boundRule{meth.name, h})
		}
	}
	return nil
}

func serviceDescriptor(name string) (protoreflect.ServiceDescriptor, error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("service %s: %w", name, err)
	}
	sd, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is not a service", name)
	}
	return sd, nil
}

// Describe makes the ServiceDesc of the named service ("google.iam.admin.v1.IAM") for impl, by reflection over the
// registered descriptor: for the packages of the older generator, whose Register… functions take only a *grpc.Server.
// It panics when the name is not that of a service whose package is linked in. Methods that impl lacks, and streams,
// answer UNIMPLEMENTED.
func Describe(name string, impl any) *grpc.ServiceDesc {
	sd, err := serviceDescriptor(name)
	if err != nil {
		panic("rest: " + err.Error())
	}
	desc := &grpc.ServiceDesc{ServiceName: name, HandlerType: (*any)(nil), Metadata: sd.ParentFile().Path()}
	for i := range sd.Methods().Len() {
		md := sd.Methods().Get(i)
		if md.IsStreamingClient() || md.IsStreamingServer() {
			continue
		}
		desc.Methods = append(desc.Methods, grpc.MethodDesc{
			MethodName: string(md.Name()),
			Handler:    reflectHandler(name, string(md.Name()), md.Input().FullName()),
		})
	}
	return desc
}

func reflectHandler(service, name string, input protoreflect.FullName) grpc.MethodHandler {
	full := "/" + service + "/" + name
	return func(srv any, ctx context.Context, dec func(any) error, icpt grpc.UnaryServerInterceptor) (any, error) {
		mt, err := protoregistry.GlobalTypes.FindMessageByName(input)
		if err != nil {
			return nil, err
		}
		in := mt.New().Interface()
		if err := dec(in); err != nil {
			return nil, err
		}
		call := func(ctx context.Context, req any) (any, error) {
			fn := reflect.ValueOf(srv).MethodByName(name)
			if !fn.IsValid() {
				return nil, status.Errorf(codes.Unimplemented, "method %s not implemented", name)
			}
			out := fn.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(req)})
			if err, _ := out[1].Interface().(error); err != nil {
				return nil, err
			}
			return out[0].Interface(), nil
		}
		if icpt == nil {
			return call(ctx, in)
		}
		return icpt(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, call)
	}
}

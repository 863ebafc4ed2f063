package m3connect;

import java.io.IOException;
import java.util.List;
import org.elasticsearch.Build;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.rest.BaseRestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;
import org.elasticsearch.xcontent.XContentBuilder;

/** Stand-in for the distribution's rest-root module, which no public Maven repository carries: GET and HEAD /. */
public class RootHandler extends BaseRestHandler {
    @Override
    public String getName() {
        return "root";
    }

    @Override
    public List<Route> routes() {
        return List.of(new Route(RestRequest.Method.GET, "/"), new Route(RestRequest.Method.HEAD, "/"));
    }

    @Override
    protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) throws IOException {
        return channel -> {
            Build build = Build.current();
            XContentBuilder answer = channel.newBuilder().startObject();
            answer.field("name", client.settings().get("node.name")).field("cluster_name", "test");
            answer.startObject("version").field("number", build.version()).field("build_flavor", build.flavor()).endObject();
            channel.sendResponse(new RestResponse(RestStatus.OK, answer.field("tagline", "You Know, for Search").endObject()));
        };
    }
}

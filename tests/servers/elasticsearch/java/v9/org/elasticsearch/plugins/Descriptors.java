package org.elasticsearch.plugins;

import java.util.List;
import org.elasticsearch.Build;

/** What a plugin directory would say of a plugin. */
final class Descriptors {
    private Descriptors() {}

    static PluginDescriptor of(Class<? extends Plugin> type) {
        return new PluginDescriptor(type.getName(), "on the class path", "NA", Build.current().version(), "17",
            type.getName(), null, List.of(), false, false, false, false, PluginDescriptor.DeploymentTarget.ALL);
    }
}

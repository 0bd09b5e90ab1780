import com.fasterxml.jackson.databind.ObjectMapper;
import com.plivo.api.Plivo;
import com.plivo.api.PlivoClient;
import com.plivo.api.exceptions.PlivoRestException;
import com.plivo.api.models.base.ListResponse;
import com.plivo.api.models.message.Message;
import com.plivo.api.models.message.MessageDirection;
import com.plivo.api.models.message.MessageLister;
import com.plivo.api.models.message.MessageState;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;

/** Plivo's own Java client: pages to the end, filters, an error code as a number, one message, errors. Prints JSON. */
public class PlivoJava {
  static class Pointed extends PlivoClient {
    Pointed(String id, String token) { super(id, token); }
    static void at(String url) { BASE_URL = url; }
  }

  interface Ask { void run() throws Exception; }

  static List<Message> every(UnaryOperator<MessageLister> filter) throws Exception {
    List<Message> found = new ArrayList<>();
    while (true) {
      ListResponse<Message> page = filter.apply(Message.lister()).limit(20).offset(found.size()).list();
      found.addAll(page.getObjects());
      if (page.getMeta().getNext() == null) return found;
    }
  }

  static List<String> ids(List<Message> messages) {
    List<String> ids = new ArrayList<>();
    for (Message message : messages) ids.add(message.getMessageUuid());
    return ids;
  }

  static Map<String, Object> plain(Message message) throws Exception {
    Map<String, Object> told = new LinkedHashMap<>();
    for (Method method : Message.class.getDeclaredMethods())
      if (method.getName().startsWith("get") && method.getParameterCount() == 0)
        told.put(method.getName().substring(3).replaceAll("([a-z0-9])([A-Z]+)", "$1_$2").toLowerCase(), method.invoke(message));
    return told;
  }

  static String failure(Ask ask) throws Exception {
    try {
      ask.run();
      return "";
    } catch (PlivoRestException e) {
      return e.getClass().getSimpleName();
    }
  }

  public static void main(String[] args) throws Exception {
    Pointed.at(args[0] + "/v1/");
    Plivo.init(args[1], args[2]);
    List<Message> found = every(lister -> lister);
    List<Object> objects = new ArrayList<>();
    for (Message message : found) objects.add(plain(message));
    Map<String, Object> filters = new LinkedHashMap<>();
    filters.put("fine", ids(every(lister -> lister.errorCode(0L))));
    filters.put("delivered", ids(every(lister -> lister.messageState(MessageState.DELIVERED))));
    filters.put("inbound", ids(every(lister -> lister.messageDirection(MessageDirection.INBOUND))));
    Map<String, Object> told = new LinkedHashMap<>();
    told.put("objects", objects);
    told.put("filters", filters);
    told.put("one", plain(Message.getter(found.get(0).getMessageUuid()).get()));
    Map<String, String> errors = new LinkedHashMap<>();
    errors.put("limit", failure(() -> Message.lister().limit(21).list()));
    errors.put("unknown", failure(() -> Message.getter("11111111-1111-1111-1111-111111111111").get()));
    Plivo.init(args[1], "wrong");
    errors.put("key", failure(() -> Message.lister().list()));
    told.put("errors", errors);
    System.out.println(new ObjectMapper().writeValueAsString(told));
    System.exit(0);
  }
}

import com.plivo.api.Plivo;
import com.plivo.api.PlivoClient;
import com.plivo.api.exceptions.PlivoRestException;
import com.plivo.api.models.base.ListResponse;
import com.plivo.api.models.message.Message;
import java.util.ArrayList;
import java.util.List;

/** Plivo's own Java client: pages to the end, an error code as a number, one message, a wrong key. Prints JSON. */
public class PlivoJava {
  static class Pointed extends PlivoClient {
    Pointed(String id, String token) { super(id, token); }
    static void at(String url) { BASE_URL = url; }
  }

  public static void main(String[] args) throws Exception {
    Pointed.at(args[0] + "/v1/");
    Plivo.init(args[1], args[2]);
    List<String> ids = new ArrayList<>();
    while (true) {
      ListResponse<Message> page = Message.lister().limit(20).offset(ids.size()).list();
      for (Message message : page.getObjects()) ids.add("\"" + message.getMessageUuid() + "\"");
      if (page.getMeta().getNext() == null) break;
    }
    int fine = Message.lister().errorCode(0L).list().getObjects().size();
    String one = Message.getter(ids.get(0).replace("\"", "")).get().getMessageUuid();
    String error = "";
    Plivo.init(args[1], "wrong");
    try {
      Message.lister().list();
    } catch (PlivoRestException e) {
      error = e.getClass().getSimpleName();
    }
    System.out.println("{\"ids\":" + ids + ",\"fine\":" + fine + ",\"one\":\"" + one + "\",\"error\":\"" + error + "\"}");
    System.exit(0);
  }
}

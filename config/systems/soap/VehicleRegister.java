/*
 * A vehicle register as a SOAP 1.1 service. Apache CXF makes its interface of the annotations: the WSDL, the messages and
 * their check against the schema; WSS4J checks the callers' user names. Only what a vehicle is stands here.
 *
 * A registration is on the disk before it is answered, so a crash loses none that was; a line that it cut off was not.
 *
 *   java -cp ... VehicleRegister PORT FOLDER
 *
 * FOLDER holds users.txt, a name and a password on each line, and vehicles.tsv, what is registered.
 */

import jakarta.jws.WebMethod;
import jakarta.jws.WebParam;
import jakarta.jws.WebResult;
import jakarta.jws.WebService;
import jakarta.xml.bind.annotation.XmlAccessType;
import jakarta.xml.bind.annotation.XmlAccessorType;
import jakarta.xml.bind.annotation.XmlElement;
import jakarta.xml.bind.annotation.XmlSchemaType;
import jakarta.xml.bind.annotation.XmlType;
import jakarta.xml.ws.WebFault;
import java.io.IOException;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.CallbackHandler;
import javax.xml.datatype.DatatypeConfigurationException;
import javax.xml.datatype.DatatypeFactory;
import javax.xml.datatype.XMLGregorianCalendar;
import org.apache.cxf.jaxws.EndpointImpl;
import org.apache.cxf.ws.security.SecurityConstants;
import org.apache.cxf.ws.security.wss4j.WSS4JInInterceptor;
import org.apache.wss4j.common.cache.MemoryReplayCache;
import org.apache.wss4j.common.ext.WSPasswordCallback;

@WebService(
        name = "VehicleRegister",
        serviceName = "VehicleRegisterService",
        portName = "VehicleRegisterPort",
        targetNamespace = VehicleRegister.NAMESPACE)
public class VehicleRegister {
    static final String NAMESPACE = "urn:transport:vehicle-register:1";
    private static final String PLATE = "[A-Z]{2}-[0-9]{4}";

    public enum Category { CAR, LORRY, BUS, MOTORCYCLE }

    /** What is known of a vehicle. */
    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(
            name = "Vehicle",
            propOrder = {"plate", "owner", "category", "firstRegistered", "massInTonnes", "annualFee", "liens"})
    public static class Vehicle {
        @XmlElement(required = true) public String plate;
        @XmlElement(required = true) public String owner;
        @XmlElement(required = true) public Category category;
        @XmlElement(required = true) @XmlSchemaType(name = "date") public XMLGregorianCalendar firstRegistered;
        @XmlElement(required = true) public BigDecimal massInTonnes;
        @XmlElement(required = true) public BigDecimal annualFee;
        @XmlElement(name = "lien") public List<String> liens = new ArrayList<>();
    }

    /** That a vehicle was registered, and with which reference of whoever registered it. */
    @XmlAccessorType(XmlAccessType.FIELD)
    @XmlType(name = "Registration", propOrder = {"number", "plate", "reference"})
    public static class Registration {
        public long number;
        @XmlElement(required = true) public String plate;
        @XmlElement(required = true) public String reference;
    }

    @WebFault(name = "UnknownVehicle", targetNamespace = NAMESPACE)
    public static class UnknownVehicle extends Exception {
        public UnknownVehicle(String message) {
            super(message);
        }
    }

    @WebFault(name = "PlateTaken", targetNamespace = NAMESPACE)
    public static class PlateTaken extends Exception {
        public PlateTaken(String message) {
            super(message);
        }
    }

    @WebFault(name = "InvalidVehicle", targetNamespace = NAMESPACE)
    public static class InvalidVehicle extends Exception {
        public InvalidVehicle(String message) {
            super(message);
        }
    }

    private record Kept(Vehicle vehicle, Registration registration) {}

    private final Map<String, Kept> byPlate = new LinkedHashMap<>();
    private final FileChannel journal;

    /** CXF asks for one without arguments; it is never used. */
    public VehicleRegister() {
        this.journal = null;
    }

    VehicleRegister(Path file) throws IOException {
        String text = Files.readString(file);
        String whole = text.substring(0, text.lastIndexOf('\n') + 1);
        whole.lines().forEach(line -> keep(line.split("\t", -1)));
        this.journal = FileChannel.open(file, StandardOpenOption.WRITE);
        journal.truncate(whole.getBytes(StandardCharsets.UTF_8).length);
        journal.position(journal.size());
    }

    @WebMethod
    @WebResult(name = "vehicle")
    public synchronized Vehicle lookUp(@WebParam(name = "plate") @XmlElement(required = true) String plate)
            throws UnknownVehicle {
        Kept kept = byPlate.get(plate);
        if (kept == null) throw new UnknownVehicle("no vehicle has this plate");
        return kept.vehicle();
    }

    /** A repeat with the same reference is answered like the first. */
    @WebMethod
    @WebResult(name = "registration")
    public synchronized Registration register(
            @WebParam(name = "reference") @XmlElement(required = true) String reference,
            @WebParam(name = "vehicle") @XmlElement(required = true) Vehicle vehicle)
            throws PlateTaken, InvalidVehicle {
        String[] line = {
            reference, vehicle.plate, vehicle.owner, vehicle.category.name(), vehicle.firstRegistered.toXMLFormat(),
            vehicle.massInTonnes.toPlainString(), vehicle.annualFee.toPlainString(), String.join(",", vehicle.liens)
        };
        String text = String.join("\t", line);
        if (!vehicle.plate.matches(PLATE)) throw new InvalidVehicle("this is no plate");
        if (text.split("\\R|\t", -1).length != line.length) throw new InvalidVehicle("a text has control characters");
        Kept kept = byPlate.get(vehicle.plate);
        if (kept == null) {
            write(text + "\n");
            kept = keep(line);
        } else if (!kept.registration().reference.equals(reference)) {
            throw new PlateTaken("another vehicle has this plate");
        }
        return kept.registration();
    }

    /** The registrations with this reference. */
    @WebMethod
    @WebResult(name = "registration")
    public synchronized List<Registration> registrations(
            @WebParam(name = "reference") @XmlElement(required = true) String reference) {
        return byPlate.values().stream()
                .map(Kept::registration)
                .filter(each -> each.reference.equals(reference))
                .toList();
    }

    /** What it cannot keep it cannot answer either, and what stands in the file by half is cut off at the next start. */
    private void write(String line) {
        try {
            ByteBuffer bytes = ByteBuffer.wrap(line.getBytes(StandardCharsets.UTF_8));
            while (bytes.hasRemaining()) journal.write(bytes);
            journal.force(true);
        } catch (IOException error) {
            Runtime.getRuntime().halt(1);
        }
    }

    private Kept keep(String[] line) {
        Vehicle vehicle = new Vehicle();
        vehicle.plate = line[1];
        vehicle.owner = line[2];
        vehicle.category = Category.valueOf(line[3]);
        vehicle.firstRegistered = date(line[4]);
        vehicle.massInTonnes = new BigDecimal(line[5]);
        vehicle.annualFee = new BigDecimal(line[6]);
        vehicle.liens = line[7].isEmpty() ? List.of() : List.of(line[7].split(","));
        Registration registration = new Registration();
        registration.number = 100_001 + byPlate.size();
        registration.plate = line[1];
        registration.reference = line[0];
        Kept kept = new Kept(vehicle, registration);
        byPlate.put(vehicle.plate, kept);
        return kept;
    }

    private static XMLGregorianCalendar date(String text) {
        try {
            return DatatypeFactory.newInstance().newXMLGregorianCalendar(text);
        } catch (DatatypeConfigurationException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Tells WSS4J a user's password, with which it checks the digest that was sent. */
    private static CallbackHandler passwords(Path file) throws IOException {
        Map<String, String> passwords = new HashMap<>();
        for (String line : Files.readAllLines(file)) {
            String[] pair = line.split(" ", 2);
            passwords.put(pair[0], pair[1]);
        }
        return callbacks -> {
            for (Callback each : callbacks) {
                WSPasswordCallback asked = (WSPasswordCallback) each;
                asked.setPassword(passwords.get(asked.getIdentifier()));
            }
        };
    }

    public static void main(String[] arguments) throws Exception {
        Path folder = Path.of(arguments[1]);
        EndpointImpl endpoint = new EndpointImpl(new VehicleRegister(folder.resolve("vehicles.tsv")));
        Map<String, Object> security = new HashMap<>();
        security.put("action", "UsernameToken");
        security.put("passwordType", "PasswordDigest");
        security.put("passwordCallbackRef", passwords(folder.resolve("users.txt")));
        endpoint.getInInterceptors().add(new WSS4JInInterceptor(security));
        Map<String, Object> properties = new HashMap<>();
        properties.put(SecurityConstants.NONCE_CACHE_INSTANCE, new MemoryReplayCache());
        properties.put("schema-validation-enabled", "true");
        endpoint.setProperties(properties);
        endpoint.publish("http://127.0.0.1:" + arguments[0] + "/vehicles");
    }
}
